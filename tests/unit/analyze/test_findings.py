# SPDX-License-Identifier: GPL-2.0-only
"""Each rule speaks of a capture in which it must, and not of one that is nearly like it."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

import analyze
from analyze.finding import Finding
from analyze.findings import RULES, load_findings
from analyze.render.report import render_text
from analyze.report import make_report
from tests.builders import SECOND_NS, START_NS, table, write_capture

MS = 1_000_000


def findings(tmp_path: Path, rows: pa.Table, **overrides: Any) -> list[Finding]:
    with analyze.open(write_capture(tmp_path / "run.parquet", rows, **overrides)) as capture:
        return list(load_findings(capture))


class Case(NamedTuple):
    """Rows of which the rule must speak, and rows of which it must not; what they lack in both."""

    rule: str
    rows: pa.Table
    others: pa.Table
    said: str  # in the text
    overrides: Mapping[str, Any] = MappingProxyType({})
    other_overrides: Mapping[str, Any] = MappingProxyType({})


def at(seconds: Any) -> np.ndarray:
    return START_NS + np.sort(np.asarray(seconds) * SECOND_NS).astype(np.int64)


def events(kind: str, count: int) -> dict[str, Any]:
    counted = {"merges": 0, "splits": 0, "requeues": 0, "refused": 0} | {kind: count}
    return {"counts": {"events": [{"device": "loop0", "op": "read"} | counted]}}


def flushes(latency_ns: int) -> pa.Table:
    is_flush = np.arange(1000) % 2 == 0
    return table(
        1000,
        op=np.where(is_flush, "flush", "write"),
        bytes=np.where(is_flush, 0, 4096),
        latency_ns=np.where(is_flush, latency_ns, 1_000_000),
    )


def bursts(seconds: Any) -> pa.Table:
    """A process that writes 1 MiB twenty times at each of some seconds, another all the time."""
    starts = np.repeat(np.asarray(seconds), 20) + np.tile(np.arange(20) / 100, len(seconds))
    steady = np.arange(0, 60, 0.05)
    times = np.concatenate([starts, steady])
    order = np.argsort(times, kind="stable")
    is_burst = (np.arange(len(times)) < len(starts))[order]
    return table(
        len(times),
        time=at(times),
        op="write",
        pid=np.where(is_burst, 77, 1000),
        comm=np.where(is_burst, "checkpointer", "wal"),
        bytes=np.where(is_burst, 1 << 20, 4096),
    )


def short_bursts(period_s: float, spread: float) -> pa.Table:
    """For 20 s a process writes 30 times at once, at distances that differ by so much of them."""
    rng = np.random.default_rng(7)
    distances = period_s * (1 + rng.uniform(-spread, spread, int(19 / period_s)))
    times = np.repeat(0.2 + np.cumsum(distances), 30)
    times = np.sort(np.append(times[times < 19.9] + rng.uniform(0, 0.02), 20.0))
    return table(len(times), time=at(times), op="write", pid=77, comm="flusher", bytes=65536)


def beside(latency_ns: int) -> pa.Table:
    """A process that reads much in every other second; another one's I/Os take longer then."""
    times = np.arange(0, 20, 0.01)
    is_backup = (np.arange(2000) % 2 == 0) & (times.astype(int) % 2 == 0)
    is_late = times.astype(int) % 2 == 0
    return table(
        2000,
        time=at(times),
        pid=np.where(is_backup, 5, 6),
        comm=np.where(is_backup, "tar", "postgres"),
        bytes=np.where(is_backup, 1 << 20, 8192),
        latency_ns=np.where(is_late, latency_ns, 1_000_000),
    )


def late(count: int, stagger_ms: int = 0) -> pa.Table:
    """I/Os of 0.1 ms, and at 2 s some that end 900 ms later, all at once or one after the other."""
    quick = np.concatenate([np.arange(0, 2, 0.001), np.arange(3, 5, 0.001)])
    times = np.concatenate([quick, np.full(count, 2.0005)])
    latency = np.where(np.arange(len(times)) < len(quick), 100_000, 900 * MS)
    latency[len(quick) :] -= np.arange(count) * stagger_ms * MS
    order = np.argsort(times, kind="stable")
    return table(len(times), time=at(times), latency_ns=latency[order])


CASES = [
    Case("errors", table(50, errno=[5] + [0] * 49), table(50), "1 of 50 I/Os of loop0 failed"),
    Case("flush-bound", flushes(9_000_000), flushes(100_000), "90.0% of the time of loop0"),
    Case(
        "queue-wait",
        table(500, queue_ns=80_000),
        table(500, queue_ns=20_000),
        "80.0% of the time of loop0's requests",
    ),
    Case(
        "small-sync-writes",
        table(2000, op="write", flags="sync"),
        table(2000, op="write", flags="sync", bytes=65536),
        "fio (1000) does 2,000 synchronous writes",
    ),
    Case(
        "one-at-a-time",
        table(2000, latency_ns=950_000),
        table(2000, latency_ns=4_000_000),
        "2,000 reads on loop0 one after the other, 950 µs each",
    ),
    Case(
        "small-sequential-reads",
        table(2000),
        table(2000, offset=np.random.default_rng(1).permutation(1 << 16)[:2000] * 4096),
        "7.8 MiB of loop0 in a row in pieces of 4.0 KiB",
    ),
    Case(
        "misaligned",
        table(500, offset=np.arange(500) * 4096 + 512),
        table(500, offset=np.arange(500) * 4096),
        "100.0% of the I/Os of loop0",
    ),
    Case(
        "discards",
        table(500, op=["discard"] * 200 + ["read"] * 300),
        table(500, op=["discard"] * 50 + ["read"] * 450),
        "200 discards take 40.0%",
    ),
    Case(
        "splits",
        table(1000),
        table(1000),
        "500 I/Os of loop0",
        events("splits", 500),
        events("splits", 5),
    ),
    Case(
        "requeues",
        table(1000),
        table(1000),
        "put back 300 times",
        events("requeues", 300),
        events("requeues", 9),
    ),
    Case(
        "periodic-bursts",
        bursts(np.arange(2, 60, 6)),
        bursts([2, 3.1, 9, 17, 18.5, 30, 41, 43, 52, 58]),
        "checkpointer (77) does I/O on loop0 in bursts every 6.0",
    ),
    Case(
        "waits-behind",
        beside(20_000_000),
        beside(1_500_000),
        "an I/O of others takes 20.0 ms, else 1.00 ms",
    ),
    Case("stall", late(6), late(3), "loop0 ended nothing for 900 ms, from 2.001 s on, with 6"),
]


def on_vda() -> pa.Table:
    return table(200, device=np.where(np.arange(200) % 2 == 0, "loop0", "vda"))


def stands_on(*below: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "major": 259, "minor": 0, "model": None, "size_bytes": 1 << 30,
        "logical_block_size": 512, "rotational": False, "scheduler": "none", "nr_requests": 128,
        "partitions": [],
    }  # fmt: skip
    return {
        "devices": [
            described | {"name": "loop0", "stands_on": list(below)},
            described | {"name": "vda", "minor": 1, "stands_on": []},
        ]
    }


CASES.append(
    Case("loop-on-file", on_vda(), on_vda(), "loop0 is a file on vda", stands_on("vda"),
         stands_on("nvme0n1"))
)  # fmt: skip


def test_every_rule_has_a_case_and_a_description() -> None:
    assert {case.rule for case in CASES} == set(RULES)
    page = (Path(__file__).parents[3] / "docs/findings.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(RULES)


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_a_rule_speaks_where_it_must(tmp_path: Path, case: Case) -> None:
    found = [f for f in findings(tmp_path, case.rows, **case.overrides) if f.id == case.rule]
    assert len(found) == 1, found
    assert case.said in found[0].text
    assert 0 < found[0].weight <= 1


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_a_rule_is_silent_where_it_must_be(tmp_path: Path, case: Case) -> None:
    found = findings(tmp_path, case.others, **case.other_overrides)
    assert case.rule not in {finding.id for finding in found}


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_the_rows_that_show_it_are_there(tmp_path: Path, case: Case) -> None:
    """Which is more than that the condition is valid SQL."""
    for finding in findings(tmp_path, case.rows, **case.overrides):
        path = tmp_path / "run.parquet"
        begin_s, end_s = finding.begin_s, finding.end_s
        with analyze.open(path, where=finding.where, begin=begin_s, end=end_s) as shown:
            assert shown.summary().total.ios + sum(
                group.ios for group in shown.summary().cache_flushes
            )


@pytest.mark.parametrize(
    "columns",
    [
        {"offset": np.random.default_rng(1).permutation(2000) * 4096},
        {"file": [f"/src/{number // 2}.c" for number in range(2000)]},
    ],
    ids=["every block in any order", "small files one after the other"],
)
def test_what_covers_a_range_by_chance_is_not_read_in_a_row(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    found = findings(tmp_path, table(2000, **columns))
    assert "small-sequential-reads" not in {finding.id for finding in found}


def test_one_file_that_is_read_in_a_row_is_found_beside_others(tmp_path: Path) -> None:
    is_other = np.arange(4000) % 2 == 1
    place = np.arange(4000) // 2 * 4096
    rows = table(
        4000,
        offset=np.where(is_other, (1 << 30) - place, place),
        pid=np.where(is_other, 7, 1000),
        op=np.where(is_other, "write", "read"),
        file="/var/data",
    )
    assert "small-sequential-reads" in {finding.id for finding in findings(tmp_path, rows)}


@pytest.mark.parametrize("period_s", [0.1, 0.25, 0.5, 0.73, 1, 2])
@pytest.mark.parametrize("spread", [0, 0.1])
def test_short_periods_are_found_too(tmp_path: Path, period_s: float, spread: float) -> None:
    found = findings(tmp_path, short_bursts(period_s, spread))
    [text] = [finding.text for finding in found if finding.id == "periodic-bursts"]
    said = re.search(r"bursts every (\S+) (m?s):", text)
    assert said
    found_s = float(said[1]) / (1 if said[2] == "s" else 1000)
    assert found_s == pytest.approx(period_s, rel=0.05)


@pytest.mark.parametrize("period_s", [0.25, 1, 2])
def test_bursts_at_any_distances_are_no_periodic_ones(tmp_path: Path, period_s: float) -> None:
    found = findings(tmp_path, short_bursts(period_s, 1))
    assert "periodic-bursts" not in {finding.id for finding in found}


def test_ios_that_end_one_after_the_other_are_no_stall(tmp_path: Path) -> None:
    assert not [f for f in findings(tmp_path, late(6, stagger_ms=140)) if f.id == "stall"]


@pytest.mark.parametrize("device", ["loop0", "7:9", "it's", "a:b:c"])
def test_a_device_may_be_called_anything(tmp_path: Path, device: str) -> None:
    rows = table(50, device=device, errno=[5] + [0] * 49)
    (finding,) = [f for f in findings(tmp_path, rows) if f.id == "errors"]
    with analyze.open(tmp_path / "run.parquet", where=finding.where) as shown:
        assert shown.summary().total.ios == 1


def text_of(tmp_path: Path, rows: pa.Table, width: int, *, only_findings: bool) -> str:
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        return render_text(make_report(capture), width, only_findings=only_findings)


def test_a_report_ends_with_three_findings_at_most(tmp_path: Path) -> None:
    rows = table(2000, errno=[5] + [0] * 1999, op="write", flags="sync", latency_ns=950_000,
                 queue_ns=900_000, offset=np.arange(2000) * 512, bytes=512)  # fmt: skip
    text = text_of(tmp_path, rows, 80, only_findings=False)
    ending = text[text.index("stands out:\n") :].splitlines()
    assert len([line for line in ending if line[:2] == "  " and line[2] not in " ("]) == 3
    assert ending[-1] == "  (2 more findings: --findings)"
    assert max(map(len, ending)) <= 80


def test_nothing_is_said_where_nothing_stands_out(tmp_path: Path) -> None:
    rows = table(300, offset=np.random.default_rng(1).permutation(1 << 16)[:300] * 4096)
    assert "stands out" not in text_of(tmp_path, rows, 80, only_findings=False)
    assert text_of(tmp_path, rows, 80, only_findings=True).endswith("\n\nnothing stands out\n")


def test_the_rows_of_a_finding_can_be_typed_as_shown(tmp_path: Path) -> None:
    rows = table(500, offset=np.arange(500) * 4096 + 512)
    text = text_of(tmp_path, rows, 80, only_findings=True)
    shown = text[text.index("misaligned (medium): ") :].splitlines()
    (line,) = [line for line in shown if line.startswith("  rows: ")]
    _, *options = shlex.split(line)
    capture = str(tmp_path / "run.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "iorec", "report", capture, *options, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["summary"]["total"]["ios"] == 500


@pytest.mark.parametrize(("rule", "status"), [("errors", 3), ("stall", 0), ("eror", 2)])
def test_a_command_can_fail_on_a_finding(tmp_path: Path, rule: str, status: int) -> None:
    path = write_capture(tmp_path / "run.parquet", table(50, errno=[5] + [0] * 49))
    done = subprocess.run(
        [sys.executable, "-m", "iorec", "report", str(path), "--json", "--fail-on", rule],
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    if status != 2:
        found = json.loads(done.stdout)["findings"]
        assert [finding["id"] for finding in found] == ["errors"]


def test_of_many_ios_a_report_says_how_to_get_the_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyze.report.MOST_IOS_UNASKED", 49)
    path = write_capture(tmp_path / "run.parquet", table(50, errno=5))
    with analyze.open(path) as capture:
        assert "\nwhat stands out: --findings" in render_text(make_report(capture), 80)
        report = make_report(capture, findings=True)
    assert [finding.id for finding in report.findings or ()] == ["errors"]


def test_the_rows_of_a_device_with_events_are_there_whatever_it_is_called(tmp_path: Path) -> None:
    split = {"device": "it's", "op": "read", "merges": 0, "splits": 500, "requeues": 0}
    overrides = {"counts": {"events": [split | {"refused": 0}]}}
    found = findings(tmp_path, table(1000, device="it's"), **overrides)
    (finding,) = [each for each in found if each.id == "splits"]
    with analyze.open(tmp_path / "run.parquet", where=finding.where) as shown:
        assert shown.summary().total.ios == 1000
