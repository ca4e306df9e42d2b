"""A condition given with --where filters rows, and can do nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analyze
from analyze.errors import IorecError
from tests.builders import mixed_table, write_capture


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("captures") / "run.parquet", mixed_table(1009))


def matching(path: Path, where: str) -> int:
    with analyze.open(path, where=where) as capture:
        return len(capture.table())


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
