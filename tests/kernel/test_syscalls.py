# SPDX-License-Identifier: GPL-2.0-only
"""System calls: a row for each, with its file and what it returned, and what can go wrong."""

import json
import os
import platform
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analyze.capture import open_captures
from analyze.schema import LAYERS
from analyze.verdict import format_completeness
from tests.kernel.captures import Capture, accounted, assert_layers_close, completeness
from tests.kernel.conftest import IOREC, LoopDevice, python, run, start_recording, stop_recording
from tests.kernel.load import json_of
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]


@pytest.fixture
def files(make_loop: Callable[..., LoopDevice], tmp_path: Path) -> Iterator[Path]:
    """A folder whose files have paths, on any machine."""
    with mounted_ext4(make_loop(), tmp_path / "files") as folder:
        yield folder


pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the layer knows the numbers of x86_64"
)

# A prime number of calls.
PREADS = 20_011


def rows_of(capture: Capture, pid: int | None = None, **wanted: Any) -> list[dict[str, Any]]:
    rows = capture.rows(layer="syscall", **wanted)
    return [row for row in rows if pid in (None, row["pid"])]


def assert_nothing_lost(capture: Capture) -> None:
    assert_layers_close(capture)
    assert not any(capture.counts["lost"].values()), capture.counts["lost"]


def test_every_call_is_a_row_with_its_file_place_size_and_result(
    record: Record, files: Path
) -> None:
    file = files / "data"
    file.write_bytes(bytes(10_000))
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, sys
            fd = os.open(sys.argv[1], os.O_RDWR)
            for _ in range(int(sys.argv[2])):
                os.pread(fd, 4096, 8192)
            os.lseek(fd, 100, os.SEEK_SET)
            os.write(fd, b"x" * 7)
            os.fsync(fd)
            os.preadv(fd, [bytearray(10), bytearray(20)], 5)
            try:
                os.pread(99, 11, 0)
            except OSError:
                pass
            """,
            file,
            PREADS,
        ),
    )
    assert_nothing_lost(capture)
    named = rows_of(capture, file=str(file))
    preads = [row for row in named if row["op"] == "pread64"]
    assert len(preads) == PREADS
    told = ("offset", "bytes", "result", "errno", "device", "queue_ns", "bios", "inode")
    assert {tuple(row[name] for name in told) for row in preads} == {
        (8192, 4096, 10_000 - 8192, 0, None, None, None, file.stat().st_ino)
    }
    (opened,) = (row for row in named if row["op"] == "openat")
    assert {row["fd"] for row in preads} == {opened["result"]}
    assert opened["fd"] is None
    (wrote,) = (row for row in named if row["op"] == "write")
    assert (wrote["offset"], wrote["bytes"], wrote["result"]) == (100, 7, 7)
    (read,) = (row for row in named if row["op"].startswith("preadv"))
    assert (read["offset"], read["bytes"], read["result"]) == (5, 30, 30)
    (synced,) = (row for row in named if row["op"] == "fsync")
    assert (synced["offset"], synced["bytes"], synced["result"]) == (None, 0, 0)
    (failed,) = rows_of(capture, op="pread64", fd=99)
    assert (failed["errno"], failed["result"], failed["file"]) == (9, -9, None)


def test_what_is_no_file_says_what_it_is(record: Record, ram_folder: Path) -> None:
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, pty, socket, sys
            ends, pair, terminal = os.pipe(), socket.socketpair(), pty.openpty()
            os.write(ends[1], b"x" * 1009)
            os.write(pair[0].fileno(), b"x" * 1013)
            os.write(terminal[1], b"x" * 1019)
            os.read(os.open("/dev/zero", os.O_RDONLY), 1021)
            open(sys.argv[1], "w").write(os.ttyname(terminal[1]))
            """,
            ram_folder / "terminal",
        ),
    )
    found = {row["bytes"]: row for row in rows_of(capture) if row["bytes"] in range(1009, 1022)}
    assert {size: row["file"] for size, row in found.items()} == {
        1009: "pipe",
        1013: "socket",
        1019: f"char:{(ram_folder / 'terminal').read_text()}",
        1021: "char:/dev/zero",
    }
    assert {(row["inode"], row["device"], row["above"]) for row in found.values()} == {(None,) * 3}


def test_a_write_to_the_end_of_a_file_has_no_offset(record: Record, files: Path) -> None:
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, sys
            fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
            os.pwrite(fd, bytes(1009), 0)
            appending = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
            os.write(appending, b"x" * 11)
            os.pwrite(appending, b"x" * 12, 5)
            os.pwritev(fd, [b"x" * 13], 5, os.RWF_APPEND)
            os.pwritev(fd, [b"x" * 14], 5)
            os.lseek(appending, 7, os.SEEK_SET)
            os.read(appending, 15)
            """,
            files / "data",
        ),
    )
    assert (files / "data").stat().st_size == 1009 + 11 + 12 + 13
    placed = [row for row in rows_of(capture, file=str(files / "data")) if row["bytes"]]
    placed.sort(key=lambda row: row["time"])
    assert [(row["bytes"], row["offset"]) for row in placed] == [
        *((1009, 0), (11, None), (12, None), (13, None), (14, 5), (15, 7))
    ]


def test_a_read_of_a_device_is_where_the_device_stood(record: Record, loop: LoopDevice) -> None:
    capture = record(
        *("-l", "syscall", "--", "dd", f"if={loop.path}", "of=/dev/null", "bs=512"),
        *("skip=3", "count=5"),
    )
    reads = rows_of(capture, op="read", file=loop.path)
    assert sorted(row["offset"] for row in reads) == [512 * place for place in range(3, 8)]


def test_memory_without_a_file_names_none(record: Record) -> None:
    capture = record(
        *("-l", "syscall", "--syscall", "mmap", "--"),
        *python(
            """
            import mmap, os, sys
            fd = os.open("/etc/passwd", os.O_RDONLY)
            libc = __import__("ctypes").CDLL(None)
            libc.mmap(None, 12345, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, fd, 0)
            libc.mmap(None, 12346, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
            """
        ),
    )
    (anonymous,) = rows_of(capture, bytes=12345)
    assert (anonymous["file"], anonymous["fd"], anonymous["inode"]) == (None, None, None)
    (mapped,) = rows_of(capture, bytes=12346)
    assert mapped["file"] == "/etc/passwd"


def test_as_many_calls_are_seen_as_fio_counts(record: Record, files: Path) -> None:
    out = files / "fio.json"
    capture = record(
        *("-l", "syscall", "--", "fio", "--name=x", f"--filename={files / 'data'}"),
        *("--size=4M", "--rw=randrw", "--bs=4k", "--ioengine=psync", "--fsync=16"),
        *("--numjobs=2", "--thread", "--output-format=json", f"--output={out}"),
    )
    assert_nothing_lost(capture)
    jobs = json_of(out.read_text())["jobs"]
    seen = Counter(row["op"] for row in rows_of(capture, file=str(files / "data")))
    assert seen["pread64"] == sum(job["read"]["total_ios"] for job in jobs)
    assert seen["pwrite64"] == sum(job["write"]["total_ios"] for job in jobs)
    # One of each job more, when it ends.
    syncs = sum(job["sync"]["total_ios"] for job in jobs)
    assert syncs <= seen["fsync"] <= syncs + len(jobs)


def test_what_did_not_find_room_is_counted(record: Record, files: Path) -> None:
    capture = record(
        *("-l", "syscall", "--syscall", "pread64", "-B", "4K", "--"),
        *python(
            """
            import os, sys
            fd = os.open(sys.argv[1], os.O_RDONLY)
            for _ in range(int(sys.argv[2])):
                os.pread(fd, 1, 0)
            """,
            Path(__file__),
            PREADS,
        ),
    )
    counts = capture.counts["layers"]["syscall"]
    assert counts["completions"] == accounted(counts)
    ours = [entry for entry in capture.counts["devices"] if entry["op"] == "pread64"]
    assert sum(entry["recorded"] + entry["lost"] for entry in ours) >= PREADS
    assert len(rows_of(capture, op="pread64")) == counts["recorded"]


def test_the_calls_that_are_asked_for_alone_are_recorded(record: Record) -> None:
    work = python(
        "import os; f = os.open('/dev/null', os.O_WRONLY); os.write(f, b'a'); os.lseek(f, 0, 0)"
    )
    capture = record("-l", "syscall", "--syscall", "lseek,write", "--", *work)
    assert {row["op"] for row in rows_of(capture)} <= {"lseek", "write"}
    assert rows_of(capture, op="lseek")
    assert capture.metadata["filters"]["syscall"] == ["write", "lseek"]
    slow = python("import time, os; r, w = os.pipe(); os.pread", "")
    capture = record("-l", "syscall", "--min-latency", "30s", "--", *slow)
    assert rows_of(capture) == []
    assert capture.counts["filtered"] > 0


def test_a_call_that_the_kernel_begins_again_is_one_in_a_report(
    record: Record, ram_folder: Path
) -> None:
    record(
        *("-l", "syscall", "--"),
        *python(
            """
            import ctypes, os, signal, time
            ends = os.pipe()
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.siginterrupt(signal.SIGUSR1, False)
            child = os.fork()
            if child == 0:
                os._exit(ctypes.CDLL(None).read(ends[0], ctypes.create_string_buffer(13), 13))
            for _ in range(3):
                time.sleep(0.1)
                os.kill(child, signal.SIGUSR1)
            time.sleep(0.1)
            os.write(ends[1], b"x" * 7)
            os.waitpid(child, 0)
            """
        ),
    )
    with open_captures([ram_folder / "run.parquet"]) as capture:
        (row,) = capture.records("SELECT * FROM io WHERE op = 'read' AND bytes = 13")
        assert (row["result"], row["errno"], row["flags"]) == (7, 0, "")
        assert 0.39e9 < row["latency_ns"] < 3e9
        assert capture.sql("SELECT count(*) FROM io").fetchone() != (None,)
        assert capture.completeness().is_complete


def test_a_call_whose_thread_is_killed_has_ended(record: Record, ram_folder: Path) -> None:
    record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, signal, threading, time
            def wait():
                child = os.fork()
                if child:
                    return child
                os.read(os.pipe()[0], 17)
            killed = wait()
            time.sleep(0.2)
            os.kill(killed, signal.SIGKILL)
            os.waitpid(killed, 0)
            if not (leaving := os.fork()):
                threading.Thread(target=os.read, args=(os.pipe()[0], 19), daemon=True).start()
                time.sleep(0.2)
                os._exit(0)  # exit_group, with a thread in a call
            os.waitpid(leaving, 0)
            """
        ),
    )
    with open_captures([ram_folder / "run.parquet"]) as capture:
        ended = capture.records("SELECT * FROM io WHERE op = 'read' AND bytes IN (17, 19)")
    assert {row["bytes"]: row["errno"] for row in ended} == {17: 4, 19: 4}
    assert all(0.15e9 < row["latency_ns"] < 3e9 for row in ended)


def test_a_call_that_waits_when_recording_stops_is_a_row_without_latency(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-l", "syscall", "--syscall", "read")
    waiting = subprocess.Popen(
        python("import os; os.read(os.pipe()[0], 23)"), stdout=subprocess.DEVNULL
    )
    try:
        _wait_until_it_sleeps(waiting.pid)
        stop_recording(recording)
    finally:
        waiting.kill()
        waiting.wait()
    table = _table(output)
    (row,) = (row for row in table if row["pid"] == waiting.pid and row["latency_ns"] is None)
    assert (row["op"], row["result"], row["errno"]) == ("read", None, None)
    assert (row["bytes"], row["fd"] is None) == (23, False)


def _wait_until_it_sleeps(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/syscall").read_text().split()[:1] != ["0"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _table(output: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(output).to_pylist())


def test_the_file_is_the_one_that_the_number_stood_for_when_the_call_began(
    record: Record, files: Path
) -> None:
    first, second = files / "fifo", files / "regular"
    os.mkfifo(first)
    second.write_bytes(b"x")
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, sys, threading, time
            fifo, regular = os.open(sys.argv[1], os.O_RDWR), os.open(sys.argv[2], os.O_RDONLY)
            number = os.dup(regular)
            os.dup2(fifo, number)
            reader = threading.Thread(target=os.read, args=(number, 29))
            reader.start()
            time.sleep(0.2)
            os.dup2(regular, number)
            os.write(fifo, b"x")
            reader.join()
            os.read(number, 31)
            """,
            first,
            second,
        ),
    )
    (of_fifo,) = rows_of(capture, op="read", bytes=29)
    (of_file,) = rows_of(capture, op="read", bytes=31)
    assert of_fifo["fd"] == of_file["fd"]
    assert of_fifo["file"] == "pipe"
    assert of_file["file"] == str(second)


def test_calls_of_32_bit_programs_are_counted_and_never_taken_for_others(
    record: Record, ram_folder: Path
) -> None:
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import ctypes, mmap, os
            def calls(number, count):
                head, tail = "53 b8", "00 00 00 bb ff 0f 00 00 31 c9 31 d2 cd 80 5b c3"
                page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
                page.write(bytes.fromhex(f"{head} {number:02x} {tail}"))
                address = ctypes.addressof(ctypes.c_char.from_buffer(page))
                call = ctypes.CFUNCTYPE(ctypes.c_int)(address)
                return {call() for _ in range(count)}
            # 3 is read for a 32-bit program, close for others; 118 fsync, and getresuid; 20
            # getpid, and writev.
            assert calls(3, 1009) == calls(118, 503) == {-9}
            assert calls(20, 211) == {os.getpid()}
            """
        ),
    )
    assert capture.status == 0, capture.stderr
    assert_layers_close(capture)
    assert capture.counts["left_out"]["compat"] == 1009 + 503
    assert rows_of(capture, fd=0xFFF) == []
    told = format_completeness(completeness(ram_folder / "run.parquet"))
    assert "1,512 of 32-bit programs left out" in told


def test_a_thread_of_each_of_many_calls_is_known(record: Record, files: Path) -> None:
    read = [files / f"{number:03}" for number in range(50)]
    for file in read:
        file.write_bytes(file.name.encode())
    capture = record(
        *("-l", "syscall", "--"),
        *python(
            """
            import os, sys, threading
            def work(path):
                for _ in range(200):
                    fd = os.open(path, os.O_RDONLY)
                    assert os.pread(fd, 100 + int(os.path.basename(path)), 0)
                    os.close(fd)
            threads = [threading.Thread(target=work, args=(path,)) for path in sys.argv[1:]]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            """,
            *read,
        ),
    )
    assert_nothing_lost(capture)
    rows = [row for row in rows_of(capture) if (row["file"] or "").startswith(str(files))]
    assert Counter(row["op"] for row in rows) == dict.fromkeys(
        ("openat", "pread64", "close"), 10_000
    )
    for row in rows:
        if row["op"] == "pread64":
            assert row["bytes"] - 100 == int(Path(row["file"]).name)
    assert len({row["tid"] for row in rows}) == 50


def test_all_layers_are_recorded_at_once_and_each_account_closes(
    record: Record, files: Path, ram_folder: Path
) -> None:
    capture = record(
        *("-l", "all", "--"),
        *python(
            """
            import os, sys
            fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
            for _ in range(31):
                os.write(fd, bytes(4096))
                os.fsync(fd)
            """,
            files / "data",
        ),
    )
    assert_layers_close(capture)
    assert capture.metadata["layers"] == [*LAYERS]
    assert len(rows_of(capture, op="fsync", file=str(files / "data"))) == 31
    # By default the layers of disks are shown, as before.
    with open_captures([ram_folder / "run.parquet"]) as shown:
        layers = {layer for (layer,) in shown.sql("SELECT DISTINCT layer FROM io").fetchall()}
        assert layers <= {"request", "bio"}
    with open_captures([ram_folder / "run.parquet"], layer="syscall") as shown:
        (group,) = (g for g in shown.summary(by="syscall").groups if g.key["op"] == "fsync")
        assert group.flushes == group.ios >= 31


def test_a_capture_of_calls_alone_is_shown_without_being_asked_for(
    record: Record, ram_folder: Path
) -> None:
    record("-l", "syscall", "--", *python("import os; os.open('/etc/passwd', os.O_RDONLY)"))
    printed = run(IOREC, "report", ram_folder / "run.parquet", "--json", capture_output=True).stdout
    document = json.loads(printed)
    assert document["summary"]["total"]["ios"] > 10
    run(IOREC, "plot", ram_folder / "run.parquet", "-o", ram_folder / "run.png")
    assert (ram_folder / "run.png").stat().st_size > 10_000


def test_a_recorder_that_is_killed_leaves_calls_that_can_be_recovered(
    ram_folder: Path, files: Path
) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-l", "syscall")
    (files / "data").write_text("x")
    run("cat", files / "data", stdout=subprocess.DEVNULL)
    time.sleep(2.5)
    recording.send_signal(signal.SIGKILL)
    recording.wait()
    run(IOREC, "recover", f"{output}.part", stderr=subprocess.DEVNULL)
    path = str(files / "data")
    assert any(row["file"] == path and row["op"] == "read" for row in _table(output))


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("-l", "syscal"), "no layer 'syscal'", "did you mean syscall?"),
        (("-l", "syscall", "--syscall", "fsink"), "no system call 'fsink'", "or fsync?"),
        (("--syscall", "fsync"), "--syscall chooses from the layer syscall", "--layer syscall"),
        (("-l", "wait,request"), "the layer wait needs the layer syscall", "syscall,wait"),
        (("-l", "syscall", "-d", "loop0"), "-d cannot be told of the layer syscall", "leave out"),
        (("-l", "syscall", "--op", "read"), "--op chooses block I/Os", "--syscall"),
    ],
)
def test_what_cannot_be_chosen_is_an_error_that_helps(
    options: tuple[str, ...], message: str, hint: str, ram_folder: Path
) -> None:
    done = subprocess.run(
        [IOREC, "record", "-o", ram_folder / "x.parquet", *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert hint in done.stderr
    assert not list(ram_folder.iterdir())
