# SPDX-License-Identifier: GPL-2.0-only
"""Processes as they are: described while they are there, and never as another one."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iorec.host import processes as host_processes
from iorec.host.notes import Notes
from iorec.host.processes import Process, Processes, Seen

TICK_NS = 10_000_000


@contextmanager
def running(*words: str, executable: str = "/usr/bin/sleep") -> Iterator[int]:
    """The pid of a process with this command line."""
    with subprocess.Popen(words, executable=executable) as child:
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes():
            assert child.poll() is None
            time.sleep(0.01)
        yield child.pid
        child.kill()


def seen(pid: int, *, uid: int = 0, comm: bytes | None = None) -> Seen:
    """What the kernel would say of it."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    own, _, fields = stat.partition(b" (")[2].rpartition(b") ")
    start_ns = int(fields.split()[19]) * TICK_NS + 1_234_567
    return Seen(pid, start_ns, int(fields.split()[1]), uid, own if comm is None else comm)


def described(who: Seen, *, has_cmdlines: bool = True) -> Process:
    return Processes(Notes(), has_cmdlines=has_cmdlines).describe(who)


def test_a_process_has_its_command_line_user_and_parent() -> None:
    words = ("wait", "-c", "import time; time.sleep(60)", " a\\b")
    with running(*words, executable="/usr/bin/python3") as pid:
        found = described(seen(pid))
        started = Path(f"/proc/{pid}").stat().st_ctime_ns
    assert found.name == "python3"
    assert found.cmdline == "wait -c import time; time.sleep(60)  a\\x5cb"
    assert found.username == "root"
    assert found.ppid == os.getpid()
    assert found.started_at is not None
    assert abs(found.started_at - started) < 1_000_000_000


def test_a_title_is_the_name() -> None:
    with running("sleep: checkpointer", "60") as pid:
        assert described(seen(pid)).name == "sleep: checkpointer 60"
    with running("sleepy: no title of sleep", "60") as pid:
        assert described(seen(pid)).name == "sleep"


@pytest.mark.parametrize(
    ("title", "activity"),
    [
        ("postgres: app shop [local]", "idle in transaction"),
        ("postgres: 15/main: app shop 10.0.0.5(52311)", "SELECT"),
        ("postgres: app my shop ::1(5)", "UPDATE waiting"),
        ("postgres: walsender copy db2(52312)", "streaming 0/3000148"),
        ("postgres: 15/main: startup", "recovering 000000010000000000000003"),
        ("postgres: archiver", "last was 000000010000000000000003"),
    ],
)
def test_a_process_of_postgresql_is_named_without_what_it_was_doing(
    tmp_path: Path, title: str, activity: str
) -> None:
    program = shutil.copy("/usr/bin/sleep", tmp_path / "postgres")
    with running(f"{title} {activity}", "60", executable=str(program)) as pid:
        found = described(seen(pid))
    assert (found.name, found.cmdline) == (title, f"{title} {activity} 60")


@pytest.mark.parametrize(
    "title",
    [
        *("postgres: 15/main: background writer", "postgres: autovacuum worker shop"),
        *("postgres: parallel worker for PID", "nginx: worker process", "sshd: app [local] idle"),
    ],
)
def test_other_titles_are_whole(tmp_path: Path, title: str) -> None:
    program = shutil.copy("/usr/bin/sleep", tmp_path / title.partition(":")[0])
    with running(title, "60", executable=str(program)) as pid:
        assert described(seen(pid)).name == f"{title} 60"


def test_command_lines_can_be_left_out() -> None:
    with running("sleep: secret", "60") as pid:
        found = described(seen(pid), has_cmdlines=False)
    assert (found.name, found.cmdline) == ("sleep", None)


def test_another_process_of_the_number_is_not_taken_for_it() -> None:
    with running("sleep", "60") as pid:
        who = seen(pid)
        later = who._replace(start_ns=who.start_ns + TICK_NS)
        assert described(later).cmdline is None
        assert described(who._replace(comm=b"bash")).cmdline is None
        assert described(who).cmdline == "sleep 60"


def test_of_one_that_has_ended_the_kernel_knows_the_name() -> None:
    with running("sleep", "60") as pid:
        who = seen(pid, uid=4_000_000_000)
    found = described(who)
    assert (found.name, found.cmdline, found.username) == ("sleep", None, "4000000000")


def test_one_without_a_command_line_yet_is_looked_at_again() -> None:
    """As in exec(2), where a program has its name before its command line."""
    processes = Processes(Notes(), has_cmdlines=True)
    with running("sleep", "60") as pid:
        who = seen(pid)
        with pytest.MonkeyPatch.context() as patch:
            read = host_processes._read_file
            empty = {"cmdline": b""}
            patch.setattr(
                host_processes,
                "_read_file",
                lambda folder, name, size: empty.get(name, read(folder, name, size)),
            )
            assert processes.describe(who).cmdline is None
        assert processes.describe(who).cmdline == "sleep 60"


def test_one_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    notes, ended = Notes(), threading.Event()
    processes = Processes(notes, has_cmdlines=True)
    read = host_processes._read_cmdline

    def read_or_hang(who: Seen) -> bytes | None:
        if who.comm == b"hangs":
            ended.wait()
        return read(who)

    monkeypatch.setattr(host_processes, "_read_cmdline", read_or_hang)
    monkeypatch.setattr(host_processes, "_PATIENCE_S", 0.01)
    for number in range(host_processes._MOST_HANGS - 1):
        assert processes.describe(Seen(number, 1, 1, 0, b"hangs")).cmdline is None
    monkeypatch.setattr(host_processes, "_PATIENCE_S", 60)
    with running("sleep", "60") as pid:
        assert processes.describe(seen(pid)).cmdline == "sleep 60"
    assert [count for _, count in notes.counts().items()] == [host_processes._MOST_HANGS - 1]
    ended.set()


def test_a_kernel_thread_has_none() -> None:
    assert described(seen(2)).cmdline is None
    assert described(seen(2)).name == "kthreadd"


def test_those_used_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_processes, "_MOST_PROCESSES", 2)
    processes = Processes(Notes(), has_cmdlines=True)
    with running("sleep", "60") as pid:
        who = seen(pid)
        processes.describe(who)
    for number in (1, 2, 3):
        processes.describe(Seen(2**22 + number, 1, 1, 0, b"gone"))
        if number == 1:
            assert processes.describe(who).cmdline == "sleep 60"
    assert processes.describe(who).cmdline is None


def test_a_long_command_line_is_cut() -> None:
    words = ("wait", "-c", "import time; time.sleep(60)", "é" * 4000)
    with running(*words, executable="/usr/bin/python3") as pid:
        cmdline = described(seen(pid)).cmdline
    assert cmdline is not None
    assert cmdline.startswith("wait -c import time; time.sleep(60) é")
    assert cmdline.endswith("...")
    assert len(cmdline.encode()) <= 1030


@pytest.mark.parametrize("comm", [b") (", b"a) R 1 (", b"\xff\n"])
def test_any_comm_is_told_from_what_follows_it(comm: bytes, tmp_path: Path) -> None:
    script = "import sys; open('/proc/self/comm', 'wb').write(bytes.fromhex(sys.argv[1]))\n"
    script += "print(flush=True); sys.stdin.read()"
    words = ["/usr/bin/python3", "-c", script, comm.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = described(seen(child.pid, comm=comm))
        child.kill()
    assert found.cmdline is not None
    assert found.cmdline.endswith(comm.hex())


def test_the_start_is_unknown_on_old_kernels() -> None:
    assert described(Seen(1, 0, 0, 0, b"init")) == Process()
