# SPDX-License-Identifier: GPL-2.0-only
"""Time in the kernel programs for each I/O: iorec's slot table, and hash maps, in turn."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iorec.kernel.btf import KernelTypes
from iorec.kernel.compile import import_bcc, instructions_of
from iorec.kernel.libbpf import attach_program, libbpf, load_tracing_program
from tests.bench.load import SATURATED, loop_device, run_fio
from tests.bench.stats import PAIRS, ratio, spread
from tests.bench.tracers import TRACERS, Tracer, running

_BPF_STATS_RUN_TIME = 0
_NAME_OFFSET, _NAME_BYTES = 64, 16  # in struct bpf_prog_info


def measure() -> dict[str, Any]:
    """ns for each I/O, what measuring a run costs taken off; iorec's also by program."""
    names = (*(name for name in TRACERS if name.startswith("iorec")), "bcc", "bpftrace")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with _run_time_counted(), _empty_program() as empty, loop_device() as (device, folder):
        for _ in range(PAIRS):
            for name, times in found.items():
                times.append(_program_times(TRACERS[name], empty, device, folder))
    totals = {name: [sum(time.values()) for time in times] for name, times in found.items()}
    return {
        **{f"{name}_ns": spread(total) for name, total in totals.items()},
        "ratio": ratio(totals["iorec"], totals["bcc"]),
        "programs_ns": {
            name: {
                program: spread([time[program] for time in times]) for program in sorted(times[0])
            }
            for name, times in found.items()
        },
    }


def _program_times(tracer: Tracer, empty: int, device: str, folder: Path) -> dict[str, float]:
    """ns for each I/O in each program of the tracer."""
    with running(tracer, folder) as process:
        before, empty_before = _counters(process.pid), _run_time(os.getpid(), empty)
        ios = run_fio(device, SATURATED).ios
        after, empty_after = _counters(process.pid), _run_time(os.getpid(), empty)
    empty_ns, empty_runs = (b - a for a, b in zip(empty_before, empty_after, strict=True))
    return {
        name: (ns - before[name][0] - (runs - before[name][1]) * empty_ns / empty_runs) / ios
        for name, (ns, runs) in after.items()
    }


def _counters(pid: int) -> dict[str, tuple[int, int]]:
    """ns and runs by the name of each program that the process holds."""
    fds = (int(path.name) for path in Path(f"/proc/{pid}/fdinfo").iterdir())
    texts = {fd: _fdinfo(pid, fd) for fd in fds}
    return {
        _name(int(fields["prog_id"])): _run_time(pid, fd)
        for fd, fields in texts.items()
        if "run_cnt" in fields
    }


def _run_time(pid: int, fd: int) -> tuple[int, int]:
    fields = _fdinfo(pid, fd)
    return int(fields["run_time_ns"]), int(fields["run_cnt"])


def _fdinfo(pid: int, fd: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _name(program_id: int) -> str:
    fd = libbpf().bpf_prog_get_fd_by_id(program_id)
    info = ctypes.create_string_buffer(256)
    libbpf().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(ctypes.c_uint32(len(info))))
    os.close(fd)
    return info.raw[_NAME_OFFSET:][:_NAME_BYTES].rstrip(b"\0").decode()


@contextmanager
def _run_time_counted() -> Iterator[None]:
    fd = libbpf().bpf_enable_stats(_BPF_STATS_RUN_TIME)
    assert fd >= 0, "the kernel does not count the time of BPF programs (before 5.8)"
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def _empty_program() -> Iterator[int]:
    """A program that does nothing, at every completion."""
    bcc = import_bcc()
    module = bcc.BPF(text="int empty(unsigned long long *ctx) { return 0; }")
    with KernelTypes() as kernel:
        target = kernel.tracepoint_id("block_rq_complete")
    instructions = bytes(instructions_of(bcc, module, "empty"))
    program = load_tracing_program("empty", instructions, target)
    link = attach_program(program, "empty")
    try:
        yield program
    finally:
        os.close(link)
        os.close(program)
