# SPDX-License-Identifier: GPL-2.0-only
"""The command line: exit codes, streams, and errors that name the cause and the next step."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import analyze
from iorec.cli import run
from tests.builders import mixed_table, table, write_capture

IOREC = [sys.executable, "-c", "from iorec.__main__ import main; main()"]
READERS = ["report", "info"]
HEAVY = ("numpy", "pyarrow", "duckdb", "pandas", "matplotlib", "rich", "bcc")


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


@pytest.fixture
def iorec(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_here(*arguments: str | Path) -> Outcome:
        exit_code = run([str(argument) for argument in arguments])
        return Outcome(exit_code, *capsys.readouterr())

    return run_here


def iorec_process(*arguments: str | Path, **environment: str) -> Outcome:
    result = subprocess.run(
        [*IOREC, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


def check_error(outcome: Outcome, exit_code: int, cause: str) -> None:
    assert outcome.exit_code == exit_code, outcome
    error, hint = outcome.stderr.splitlines()
    assert error.startswith("error: ")
    assert cause in error
    assert hint.startswith("hint: ")
    assert outcome.stdout == ""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    return write_capture(folder / "run.parquet", mixed_table(1009))


def test_report_prints_text_json_and_csv_on_stdout_alone(iorec: Run, path: Path) -> None:
    text, as_json, as_csv = (iorec("report", path, *o) for o in ([], ["--json"], ["--csv"]))
    assert (text.exit_code, as_json.exit_code, as_csv.exit_code) == (0, 0, 0)
    assert text.stderr + as_json.stderr + as_csv.stderr == ""
    assert text.stdout.startswith("complete: 1,009 I/Os")
    groups = json.loads(as_json.stdout)["summary"]["groups"]
    lines = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [group["ios"] for group in groups] == [int(line["ios"]) for line in lines]


def test_report_takes_every_option_of_a_reader(iorec: Run, path: Path) -> None:
    groups = ["--by", "device,op", "--by", "cpu", "--sort", "p99", "--top", "3", "--histogram"]
    window = ["-b", "1", "-e", "9", "--where", "latency_ns > 1000", "-l", "request"]
    result = iorec("report", path, *groups, *window, "--json")
    document = json.loads(result.stdout)
    assert document["summary"]["by"] == ["device", "op", "cpu"]
    assert document["summary"]["sort"] == "p99"
    assert len(document["summary"]["groups"]) == 3
    assert document["summary"]["groups"][0]["histogram"]
    assert document["selection"] == {
        "begin_s": 1.0,
        "end_s": 9.0,
        "where": "latency_ns > 1000",
        "layer": "request",
    }


@pytest.mark.parametrize("begin", [["-b", "-1s"], ["-b-1s"], ["--begin=-1s"], ["--begin", "-1"]])
def test_a_time_from_the_end_is_no_option(iorec: Run, path: Path, begin: list[str]) -> None:
    document = json.loads(iorec("report", path, *begin, "--json").stdout)
    assert document["selection"]["begin_s"] == pytest.approx(_length_s(path) - 1)


def _length_s(path: Path) -> float:
    with analyze.open(path) as capture:
        return (capture.window.end_ns - capture.window.begin_ns) / 1e9


def test_an_interval_alone_has_one_row_and_with_by_one_for_each_group(
    iorec: Run, path: Path
) -> None:
    alone, by_op = (
        list(csv.DictReader(io.StringIO(iorec("report", path, "--csv", *options).stdout)))
        for options in (["--interval", "5s"], ["--interval", "5s", "--by", "op"])
    )
    assert [list(line)[:2] for line in (alone[0], by_op[0])] == [["start", "kind"], ["start", "op"]]
    assert len(alone) == 2
    assert len(by_op) == 6
    for lines in (alone, by_op):
        assert sum(int(line["ios"]) for line in lines) == 1009


def test_text_shows_twenty_groups_and_json_all(iorec: Run, tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(50, pid=list(range(50))))
    assert "(30 more: --top 50)" in iorec("report", path, "--by", "pid").stdout
    document = json.loads(iorec("report", path, "--by", "pid", "--json").stdout)
    assert len(document["summary"]["groups"]) == 50


def test_info_prints_text_and_json(iorec: Run, path: Path) -> None:
    assert "host         db1, Linux 6.18.44" in iorec("info", path).stdout
    [capture] = json.loads(iorec("info", path, "--json").stdout)["captures"]
    assert capture["metadata"]["hostname"] == "db1"


def test_lost_ios_are_said_on_stderr_where_stdout_has_no_room(iorec: Run, tmp_path: Path) -> None:
    counts = {"completions": 1010, "lost": {"ring_full": 1}}
    path = write_capture(tmp_path / "run.parquet", counts=counts)
    result = iorec("report", path, "--csv")
    assert result.stderr.startswith("warning: INCOMPLETE: 1 of 1,010 I/Os lost")
    assert len(result.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["fly"], "no such command 'fly'"),
        (["report"], "missing argument"),
        (["report", "{path}", "--colour"], "no such option"),
        (["report", "{path}", "--top", "0"], "'--top': '0' is not a count"),
        (["record", "--duration", "soon"], "'--duration': 'soon' is not a duration"),
        (["record", "--max-size", "8Q"], "'--max-size': '8Q' is not a size"),
        (["record", "--max-size", "0"], "--max-size of 0 B is less than"),
        (["record", "--max-size", "10", "--rotate", "2"], "--max-size of 10 B is less than"),
        (["report", "{path}", "--top", "many"], "--top"),
        (["report", "{path}", "-b", "soon"], "'soon' is not a time"),
        (["plot", "{path}", "-e", "nan"], "'nan' is not a time"),
        (["report", "{path}", "-b", "5", "-e", "5"], "not after"),
        (["report", "{path}", "--interval", "soon"], "'--interval': 'soon' is not a duration"),
        (["report", "{path}", "--interval", "1us"], "intervals of 1.00 µs"),
        (["report", "{path}", "--columns", "colour"], "cannot show the column 'colour'"),
        (["report", "{path}", "--columns", "ios", "--csv"], "--columns"),
        (["report", "{path}", "--busy", "--sort", "time"], "cannot sort devices by 'time'"),
        (["report", "{path}", "--busy", "--interval", "1s"], "--busy"),
        (["report", "{path}", "--busy", "--slowest", "3"], "--busy"),
        (["report", "{path}", "-l", "bio,request", "--by", "pid"], "--layer request,bio"),
        (["report", "{path}", "-l", "bio,request", "--busy"], "--busy and --layer request,bio"),
        (["report", "{path}", "--slowest", "0"], "'--slowest': '0' is not a count"),
        (["report", "{path}", "--slowest", "9", "--by", "pid"], "--slowest"),
        (["report", "{path}", "--by", "colour"], "cannot group by 'colour'"),
        (["report", "{path}", "--by", ""], "cannot group by ''"),
        (["plot", "{path}", "--kind", "map"], "invalid value for '--kind': 'map' is not one of"),
        (["report", "{path}", "--sort", "colour"], "cannot sort by 'colour'"),
        (["report", "{path}", "--csv", "--json"], "--csv"),
        (["report", "{path}", "--csv", "--histogram"], "--csv"),
        (["report", "{path}", "--where", "pid"], "--where"),
        (["report", "{path}", "--where", "pid = 1; DROP VIEW io"], "--where"),
    ],
)
def test_a_usage_error_exits_with_2(
    iorec: Run, path: Path, arguments: list[str], cause: str
) -> None:
    check_error(iorec(*(argument.format(path=path) for argument in arguments)), 2, cause)


@pytest.mark.parametrize("command", READERS)
def test_a_file_that_cannot_be_read_exits_with_1(iorec: Run, tmp_path: Path, command: str) -> None:
    check_error(iorec(command, tmp_path / "none.parquet"), 1, "no such file")
    (tmp_path / "empty.parquet").touch()
    check_error(iorec(command, tmp_path / "empty.parquet"), 1, "empty")
    check_error(iorec(command, tmp_path / "\x1b[31m.parquet"), 1, "\\x1b[31m.parquet")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    ("owner", "mode", "hint"),
    [
        (0, 0o600, "hint: it belongs to root: read it with sudo, or own it: sudo chown $USER {}"),
        (3_000_000, 0o600, "hint: it belongs to user 3000000: read it with sudo, or own it: "),
        (65534, 0o000, "hint: make it readable: chmod u+r {}"),
    ],
)
def test_a_file_of_another_user_has_a_hint_that_fits(
    tmp_path: Path, owner: int, mode: int, hint: str
) -> None:
    path = write_capture(tmp_path / "run.parquet")
    os.chown(path, owner, owner)
    path.chmod(mode)
    # In the folder itself: those above are open to root alone.
    code = """
import os, sys
import duckdb, iorec.cli, analyze.capture, analyze.report, analyze.render.report
os.setresuid(65534, 65534, 65534)
sys.exit(iorec.cli.run(["report", "run.parquet"]))
"""
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    error, said = done.stderr.splitlines()
    assert error == "error: cannot read run.parquet: Permission denied"
    assert said.startswith(hint.format("run.parquet"))


def test_a_window_after_the_recording_exits_with_1(iorec: Run, path: Path) -> None:
    check_error(iorec("report", path, "-b", "1000"), 1, "the window begins when")


@pytest.mark.parametrize(
    "view",
    [
        *(
            [],
            ["--by", "file", "--histogram"],
            ["--interval", "1s"],
            ["--busy"],
            ["--slowest", "3"],
        ),
        *(["--findings"], ["--fail-on", "errors"]),
    ],
)
def test_a_condition_that_nothing_meets_is_an_answer(
    iorec: Run, path: Path, view: list[str]
) -> None:
    """As of a query in SQL; who wants an exit status has --fail-on."""
    nothing = ["report", path, "--where", "pid = -5", *view]
    text = iorec(*nothing)
    assert (text.exit_code, text.stderr) == (0, "")
    assert text.stdout.endswith("\n\nnothing matches: there is no I/O where pid = -5\n")
    assert json.loads(iorec(*nothing, "--json").stdout)["summary"]["total"]["ios"] == 0
    if not {"--histogram", "--findings"}.intersection(view):
        assert iorec(*nothing, "--csv").exit_code == 0


def test_a_traceback_is_shown_only_when_asked_for(iorec: Run, tmp_path: Path) -> None:
    missing = tmp_path / "none.parquet"
    assert "Traceback" not in iorec("info", missing).stderr
    for command in ("info", "recover"):
        verbose = iorec_process(command, missing, "-v").stderr
        assert verbose.startswith("Traceback")
        assert verbose.splitlines()[-2].startswith("error: ")


@pytest.mark.parametrize("command", [[], ["report"], ["info"]])
def test_help_fits_80_columns_and_ends_with_an_example(command: list[str]) -> None:
    lines = iorec_process(*command, "--help", COLUMNS="200").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "iorec " in lines[-1]


def test_help_imports_nothing_heavy() -> None:
    code = f"import iorec.cli, sys; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_printed(iorec: Run, option: str) -> None:
    assert iorec(option).stdout.startswith("iorec 0.")


def test_iorec_alone_prints_its_help_and_no_error(iorec: Run) -> None:
    alone = iorec()
    assert alone == Outcome(2, "", iorec("--help").stdout)
    assert alone.stderr.startswith("Usage: ")


def test_help_is_a_command_too(iorec: Run) -> None:
    assert iorec("help") == iorec("--help")
    assert iorec("help", "report") == iorec("report", "--help")
    check_error(iorec("help", "fly"), 2, "no such command 'fly'")


@pytest.mark.parametrize("command", ["record", "recover", "report", "plot", "info"])
def test_every_command_shows_tracebacks_with_the_same_option(iorec: Run, command: str) -> None:
    lines = iorec(command, "--help").stdout.splitlines()
    shown = [line for line in lines if "-v, --verbose" in line]
    assert len(shown) == 1
    assert "Show tracebacks of errors" in shown[0]


@pytest.mark.parametrize("command", READERS)
def test_a_pipe_has_room_for_every_column_unless_columns_says_otherwise(
    path: Path, command: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    wide, narrow = (
        subprocess.run(
            [*IOREC, command, str(path)], env=environment | more, stdout=subprocess.PIPE, text=True
        ).stdout
        for more in ({}, {"COLUMNS": "80"})
    )
    assert "no room for" not in wide
    assert max(map(len, narrow.splitlines())) <= max(80, len(str(path)) + 80)
    assert len(narrow.splitlines()) > len(wide.splitlines())


def test_a_closed_pipe_ends_quietly(path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [*IOREC, "report", str(path), "--json"], stdout=write_end, stderr=subprocess.PIPE
    )
    os.close(write_end)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_full_disk_is_an_error(path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*IOREC, "report", str(path)], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: ")
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("_", range(8))  # half of them waited for a thread of DuckDB
def test_ctrl_c_ends_without_a_word(path: Path, _: int) -> None:
    code = """
import sys
from analyze.capture import Capture
from iorec.cli import run

def query_for_minutes(self, query, parameters=None):
    print("started", flush=True)
    self.connection.execute("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(1000000) b(i)")

Capture.sql = query_for_minutes
sys.exit(run(["report", sys.argv[1]]))
"""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        try:
            process.stdout.readline()
            enough = cpu_ticks(process.pid) + 20
            while cpu_ticks(process.pid) < enough:  # nothing but the query takes so much
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, b"")


def cpu_ticks(pid: int) -> int:
    """The CPU time that a process has had, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13]))


def test_an_encoding_without_our_characters_is_no_error(path: Path) -> None:
    result = iorec_process("report", path, LC_ALL="C", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert result.exit_code == 0
    assert "\\xb5s" in result.stdout


def test_no_colour_is_used(path: Path) -> None:
    assert (
        "\x1b" not in iorec_process("report", path, FORCE_COLOR="1", TERM="xterm-256color").stdout
    )
