# SPDX-License-Identifier: GPL-2.0-only
"""A condition given with --where filters rows, and can do nothing else."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analyze
from analyze.errors import IorecError
from tests.builders import mixed_table, table, write_capture


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("captures") / "run.parquet", mixed_table(1009))


def matching(path: Path, where: str) -> int:
    with analyze.open(path, where=where) as capture:
        return len(capture.arrow())


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("op = 'read' AND pid > 1000", lambda r: r["op"] == "read" and r["pid"] > 1000),
        ("comm LIKE 'kw%' OR pid IN (1000)", lambda r: r["comm"][:2] == "kw" or r["pid"] == 1000),
        ('"offset" % 8192 = 0', lambda r: r["offset"] is not None and r["offset"] % 8192 == 0),
        ("partition IS NULL AND NOT contains(flags, 'sync')", lambda r: r["flags"] == ""),
        ("bytes BETWEEN 1 AND 4096 -- small", lambda r: 1 <= r["bytes"] <= 4096),
        ("time >= '2026-11-21 20:32:50'", lambda r: str(r["time"]) >= "2026-11-21 20:32:50"),
        ("regexp_matches(device, '^nvme')", lambda r: r["device"] == "nvme0n1"),
        ("time - INTERVAL 1 MINUTE < '2026-11-21 20:31:50'", lambda r: r["time"].second < 50),
        ("nullif(pid, 1000) IS NULL", lambda r: r["pid"] == 1000),
        ("comm NOT ILIKE 'F_O'", lambda r: r["comm"] != "fio"),
        ("upper(left(comm, 2)) = 'KW'", lambda r: r["comm"][:2] == "kw"),
        ("CASE WHEN pid = 1 THEN false ELSE cpu::INT = 1 END", lambda r: r["cpu"] == 1),
    ],
)
def test_a_condition_keeps_the_rows_for_which_it_holds(
    path: Path, where: str, holds: Callable[[dict[str, Any]], bool]
) -> None:
    wanted = sum(holds(row) for row in mixed_table(1009).to_pylist())
    assert wanted
    assert matching(path, where) == wanted


@pytest.mark.parametrize(
    "where",
    [
        "",
        "   ",
        "op =",
        "op = 'read",
        "/*",
        "-- nothing",
        "pid",
        "1",
        "NULL",
        "'true'",
        "comm",
        "nosuch = 1",
        "offset > 5",
        "DISTINCT pid = 1",
        "ALL pid = 1",
        "true, true",
        "true AS x",
        "true FROM io",
        "true WHERE true",
        "true GROUP BY 1",
        "true ORDER BY 1",
        "true LIMIT 1",
        "true UNION SELECT false",
        "true;",
        "true; DROP VIEW io",
        "true; SET memory_limit = '100GB'",
        "true) OR (true",
        "count(*) > 1",
        "row_number() OVER () < 5",
        "pid = (SELECT 1)",
        "pid IN (SELECT pid FROM io)",
        "EXISTS (FROM read_csv('/etc/passwd'))",
        "EXISTS (SELECT 1 FROM '/etc/passwd')",
        "read_text('/etc/passwd') IS NOT NULL",
        "(SELECT content FROM read_text('/etc/passwd')) LIKE 'root%'",
        "pid = ANY(SELECT 1)",
        "pg_sleep(1) IS NULL",
        "sleep_ms(1000) IS NULL",
        "current_setting('temp_directory') = 'x'",
        "getvariable('x') = 1",
        "nextval('x') = 1",
        "setseed(0.5) IS NULL",
        "write_log('x') IS NULL",
        "random() < 0.5",
        "error('x')",
        "COLUMNS(*) = 1",
        "* = 1",
        "pid = $1",
        "pid = ?",
        "len(list_transform([1], lambda x: x + 1)) = 1",
        "repeat(comm, 1000000000) = 'x'",
        "lpad(comm, 1000000000, 'x') = 'x'",
        "rpad(comm, 1000000000, 'x') = 'x'",
        "printf('%1000000000d', pid) = 'x'",
        "format('{:1000000000}', pid) = 'x'",
        "replace(replace(comm, '', comm), '', comm) = 'x'",
        "regexp_replace(comm, '', 'xxxxxxxx', 'g') = 'x'",
        "hex(hex(hex(hex(comm)))) = 'x'",
        "comm || comm = 'x'",
        "concat(comm, comm) = 'x'",
        "bar(pid, 0, 10, 1000000000) = 'x'",
        "strftime(time, '%c%c%c%c') = 'x'",
        "len(range(1000000000)) = pid",
        "len(generate_series(1, 1000000000)) = pid",
        "comm::BLOB::BIT::VARCHAR::BLOB::BIT::VARCHAR = 'x'",
        "TRY_CAST(comm AS BIT) IS NULL",
        "comm::INT[] IS NULL",
        "[pid] = [1]",
        "{'a': pid} IS NULL",
        "comm[1:2] = 'x'",
        "(pid, tid) = (1, 2)",
        "TRY(comm::INT) = 1",
        "regexp_matches(comm, file)",
        "regexp_matches(comm, '((a?){30}){30}b')",
        "file SIMILAR TO 'a{1000}'",
        "comm = '\ud800'",
        "(" * 2000 + "true" + ")" * 2000,
        "NOT " * 1010 + "true",
        "x" * 5000,
    ],
)
def test_what_is_no_plain_condition_is_a_usage_error(path: Path, where: str) -> None:
    with pytest.raises(IorecError) as caught:
        matching(path, where)
    assert "--where" in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "where",
    [
        "file LIKE '" + "%a_" * 200 + "b'",
        "file NOT ILIKE '" + "%a_" * 200 + "b'",
        "file GLOB '" + "*a?" * 200 + "b'",
        "regexp_matches(file, '" + "(a|aa)*" * 50 + "b')",
        "regexp_matches(file, '" + "a?" * 200 + "b')",
        "lower(" * 300 + "file" + ")" * 300 + " = 'x'",
        "pid IN (" + ", ".join(map(str, range(20_000))) + ")",
        " OR ".join(f"pid = {n}" for n in range(500)),
        "pid ** 1000 ** 1000 > 1",
    ],
)
def test_a_hostile_condition_takes_seconds(tmp_path: Path, where: str) -> None:
    rows = table(20_000, file=["/" + "a" * 1000 + str(n) for n in range(20_000)])
    path = write_capture(tmp_path / "run.parquet", rows)
    with contextlib.suppress(IorecError):
        matching(path, where)


def test_a_condition_that_fails_on_a_value_is_a_usage_error(path: Path) -> None:
    with pytest.raises(IorecError, match="fio") as caught:
        matching(path, "comm::INT = 5 AND comm = 'fio'")
    assert caught.value.exit_code == 2


def test_the_connection_itself_reaches_nothing_but_the_capture(path: Path, tmp_path: Path) -> None:
    other = write_capture(tmp_path / "other.parquet")
    queries = [
        f"FROM '{other}'",
        f"FROM read_parquet('{other}')",
        "FROM read_csv('/etc/passwd')",
        "FROM glob('/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"COPY (SELECT 1) TO '{path}'",
        f"ATTACH '{tmp_path}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
    ]
    before = path.read_bytes()
    for query in queries:
        with pytest.raises(Exception, match=r"."), analyze.open(path) as capture:
            capture.sql(query).fetchall()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["other.parquet"]


@pytest.mark.parametrize("name", ["user", "session_user", "current_date", "io.user"])
def test_what_sql_takes_for_a_value_of_its_own_is_no_column(path: Path, name: str) -> None:
    with pytest.raises(IorecError) as caught, analyze.open(path, where=f"{name} <> 'root'"):
        pass
    assert caught.value.exit_code == 2


def test_an_unknown_column_gets_the_nearest_one(path: Path) -> None:
    with pytest.raises(IorecError, match="there is no column 'com'") as caught:
        matching(path, "com = 'fio'")
    assert caught.value.hint.startswith("did you mean comm? choose from: time, layer, ")
