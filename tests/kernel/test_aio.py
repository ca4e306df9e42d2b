# SPDX-License-Identifier: GPL-2.0-only
"""Asynchronous I/O by io_submit: as many rows as fio counts, and none of what was not taken."""

import platform
import sys
import textwrap
from collections import Counter
from collections.abc import Callable

import pytest

from tests.kernel.captures import Capture, assert_layers_close
from tests.kernel.conftest import LoopDevice
from tests.kernel.load import json_of

Record = Callable[..., Capture]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the layer knows the numbers of x86_64"
)

# struct iocb of include/uapi/linux/aio_abi.h, and the calls by number.
AIO = """
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
context = ctypes.c_uint64()
assert call(206, 512, ctypes.byref(context)) == 0
page = mmap.mmap(-1, 4096)
buffer = ctypes.addressof(ctypes.c_char.from_buffer(page))
def iocb(fd, opcode=0, offset=0, size=4096):
    made = struct.pack("<QIIHhIQQqQQ", 0, 0, 0, opcode, 0, fd, buffer, size, offset, 0, 0)
    return ctypes.create_string_buffer(made, 64)
def submit(iocbs):
    addresses = (ctypes.c_uint64 * len(iocbs))(*map(ctypes.addressof, iocbs))
    return call(209, context, ctypes.c_long(len(iocbs)), addresses)
def reap(count):
    events = ctypes.create_string_buffer(32 * count)
    return call(208, context, ctypes.c_long(count), ctypes.c_long(count), events, None)
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
"""
WAYS = {
    "one at a time": ("--iodepth=1", "--rw=randread"),
    "in batches": ("--iodepth=64", "--iodepth_batch=32", "--iodepth_batch_complete_min=16"),
    "in two jobs": ("--iodepth=16", "--rw=randwrite", "--fsync=32", "--numjobs=2", "--thread"),
}


def script(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", AIO + textwrap.dedent(text), *arguments]


@pytest.mark.parametrize("way", WAYS)
def test_there_are_as_many_rows_as_fio_counts(way: str, record: Record, loop: LoopDevice) -> None:
    out = loop.backing.with_name("fio.json")
    capture = record(
        *("-l", "aio", "--", "fio", "--name=x", f"--filename={loop.path}", "--size=16M"),
        *("--rw=randrw", "--bs=4k", "--direct=1", "--ioengine=libaio", *WAYS[way]),
        *("--output-format=json", f"--output={out}"),
    )
    assert_layers_close(capture)
    assert not any(capture.counts["lost"].values()), capture.counts["lost"]
    jobs = json_of(out.read_text())["jobs"]
    rows = capture.rows(layer="aio", file=loop.path)
    seen = Counter(row["op"] for row in rows)
    assert seen["pread"] == sum(job["read"]["total_ios"] for job in jobs)
    assert seen["pwrite"] == sum(job["write"]["total_ios"] for job in jobs)
    moving = [row for row in rows if row["op"] != "fsync"]
    assert {(row["bytes"], row["result"], row["errno"]) for row in moving} == {(4096, 4096, 0)}
    assert all(row["offset"] % 4096 == 0 and row["offset"] < 16 << 20 for row in moving)
    assert all(row["latency_ns"] is not None for row in rows)


def test_what_io_submit_did_not_take_has_not_begun(record: Record, loop: LoopDevice) -> None:
    capture = record(
        *("-l", "aio", "--"),
        *script(
            """
            iocbs = [iocb(fd, offset=n * 4096) for n in range(7)]
            iocbs[3] = iocb(9999)
            assert submit(iocbs) == 3  # up to the one that cannot be
            assert reap(3) == 3
            assert submit(iocbs[3:]) == -1
            """,
            loop.path,
        ),
    )
    assert capture.status == 0, capture.stderr
    assert_layers_close(capture)
    rows = capture.rows(layer="aio")
    assert sorted(row["offset"] for row in rows) == [0, 4096, 8192]
    assert capture.counts["in_flight_at_stop"] == 0


def test_many_at_once_are_recorded_up_to_a_number_and_then_counted(
    record: Record, loop: LoopDevice
) -> None:
    capture = record(
        *("-l", "aio", "--"),
        *script(
            """
            iocbs = [iocb(fd, offset=n * 4096) for n in range(149)]
            taken = 0
            while taken < 149:
                taken += submit(iocbs[taken:])
            assert reap(149) == 149
            """,
            loop.path,
        ),
    )
    assert capture.status == 0, capture.stderr
    assert_layers_close(capture)
    rows = capture.rows(layer="aio", file=loop.path)
    assert len({row["offset"] for row in rows}) == len(rows) >= 132
    assert capture.counts["left_out"]["beyond"] == 149 - len(rows)


def test_an_error_and_a_short_read_are_what_the_program_got(
    record: Record, loop: LoopDevice
) -> None:
    capture = record(
        *("-l", "aio", "--"),
        *script(
            """
            end = os.lseek(fd, 0, os.SEEK_END)
            assert submit([iocb(fd, offset=end)]) == 1
            assert reap(1) == 1
            assert submit([iocb(fd, offset=100)]) == 1  # not a multiple of a sector
            assert reap(1) == 1
            """,
            loop.path,
        ),
    )
    assert capture.status == 0, capture.stderr
    end, odd = sorted(capture.rows(layer="aio"), key=lambda row: row["time"])
    assert (end["result"], end["errno"], end["bytes"]) == (0, 0, 4096)
    assert (odd["result"], odd["errno"], odd["offset"]) == (-22, 22, 100)
