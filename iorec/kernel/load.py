# SPDX-License-Identifier: GPL-2.0-only
"""Loads and attaches the kernel programs."""

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from analyze.errors import IorecError
from iorec.kernel.btf import KernelTypes
from iorec.kernel.calls import calls_table
from iorec.kernel.comm_glob import glob_masks
from iorec.kernel.compile import compile_programs, source_texts
from iorec.kernel.compiled import Compiled
from iorec.kernel.header import kernel_header
from iorec.kernel.kept import kept
from iorec.kernel.libbpf import (
    attach_program,
    create_map,
    has_cmpxchg,
    load_tracing_program,
    map_memory_bytes,
    update_map,
)
from iorec.kernel.offered import check_layers
from iorec.kernel.plan import KernelFilter, Plan, cached_identities, gap_ns, gap_rows

MAPS = ("records", "control", "lanes", "in_flight", "tallies", "gaps")

# By the table of tail calls.
_NEXT_CALLS = {
    "bios_complete": "more_bios",
    "aio_enter": "more_iocbs",
    "aio_exit": "more_events",
}
# No other numbers in the programs, see NUMBER_AT() in bpf/ledger.c.
_COPY_MARK, _PID_MARK, _FINDER_MARK = 0x2EC0_17D5, 0x2EC0_17D6, 0x2EC0_17D7
_ALL_PARTITIONS = 0xFFFFFFFF  # WHOLE_DISK of bpf/filter.c
_U32 = struct.Struct("=I")
# What kernels have that lack a tracepoint: before 6.5, before 5.18 (203a31516616), and before 6.4.
_EARLIER_TRACEPOINTS = {
    "block_io_start": "block_getrq",
    "writeback_dirty_folio": "writeback_dirty_page",
    "io_uring_submit_req": "io_uring_submit_sqe",
}


class Running(NamedTuple):
    """What was loaded and attached.

    `descriptors` are file descriptors by name: `map NAME`, `program NAME`, `link NAME`.
    """

    descriptors: dict[str, int]
    has_trace: bool
    memory_bytes: int  # of all maps


def load_programs(plan: Plan) -> Running:
    """Loads and attaches the programs of the plan, compiled unless they were before.

    Raises IorecError for whatever keeps them from being compiled, loaded or attached.
    """
    check_layers(plan.layers)
    defines = defines_of(plan)
    if plan.wants_trace:
        with contextlib.suppress(IorecError):
            return _load_with(plan, {**defines, "TRACE": "1"})
    return _load_with(plan, defines)


def defines_of(plan: Plan, cpus: int | None = None) -> dict[str, str]:
    """The -D flags of the programs, for as many CPUs as this machine may have."""
    cpus = cpus or possible_cpus()
    return {
        "CPUS": str(cpus),
        "GAPS": str(gap_rows(cpus)),
        "GAP_NS": f"{gap_ns(cpus)}ULL",
        "CACHED_IDENTITIES": str(cached_identities(cpus, plan.layer_count)),
        "LAYERS": str(plan.layer_count),
        "LANES": str(max(lanes.stop for lanes in plan.lanes.values())),
        **{f"{name.upper()}_LANE": str(lanes.start) for name, lanes in plan.lanes.items()},
        **{f"RECORDS_{layer.upper()}S": "1" for layer in plan.layers},
        **({"RECORDS_BLOCK_IO": "1"} if plan.has_block_layer else {}),
        **({"IS_IO_CONTROLLER_UNIFIED": "1"} if plan.is_io_controller_unified else {}),
        "BUCKETS": str(plan.bucket_count),
        "RING_PAGES": str(plan.ring_bytes // mmap.PAGESIZE),
        "COPY_MARK": str(_COPY_MARK),
        "PID_MARK": str(_PID_MARK),
        "FINDER_MARK": str(_FINDER_MARK),
        "PAGE_SIZE": str(mmap.PAGESIZE),
        **plan.kernel_filter.defines(),
        **({"HAVE_CMPXCHG": "1"} if has_cmpxchg() else {}),
    }


def possible_cpus() -> int:
    # A list of ranges such as 0-3,8-11; maps are indexed by number, so the highest one counts.
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def compile_plan(plan: Plan, defines: Mapping[str, str]) -> Compiled:
    """The programs of the plan for the running kernel."""
    with KernelTypes() as kernel:
        header = kernel_header(kernel, has_bios="bio" in plan.layers)
        targets = {
            name: kernel.tracepoint_id(
                place if kernel.has_tracepoint(place) else _EARLIER_TRACEPOINTS.get(place, place)
            )
            for name, place in plan.programs.items()
        }
    return compile_programs(header, defines, targets)


def _load_with(plan: Plan, defines: Mapping[str, str]) -> Running:
    basis = [*source_texts(), *map("=".join, sorted(defines.items()))]
    compiled = kept(Compiled, basis, lambda: compile_plan(plan, defines))
    fds = [create_map(wanted) for wanted in compiled.maps]
    by_name = {wanted.name: fd for wanted, fd in zip(compiled.maps, fds, strict=True)}
    _fill_filters(by_name, plan.kernel_filter)
    if "calls" in by_name:
        update_map(by_name["calls"], _U32.pack(0), calls_table(plan.calls))
    named = {f"map {name}": by_name[name] for name in MAPS}

    def load(name: str, copy: int) -> int:
        program = compiled.programs[name]
        marks = {
            _COPY_MARK: copy,
            _PID_MARK: plan.kernel_filter.excluded_pid or 0,
            _FINDER_MARK: plan.kernel_filter.excluded_finder_pid or 0,
        }
        linked = program.linked(fds, marks)
        return load_tracing_program(copy_name(name, copy), linked, program.target)

    # The verifier takes 0.2 s for the longest of them.
    with ThreadPoolExecutor() as pool:
        loading = {
            name: [pool.submit(load, name, copy) for copy in range(plan.copy_count(name))]
            for name in compiled.programs
        }
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            program = loaded.result()
            if (table := _NEXT_CALLS.get(name)) is not None:
                update_map(by_name[table], _U32.pack(copy), _U32.pack(program))
                # Without a descriptor of it, the kernel empties the table (prog_array_map_clear).
                named[f"link {table}"] = by_name[table]
            named[f"program {copy_name(name, copy)}"] = program
    # In the order of their copies: each is called after those attached before.
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            link = attach_program(loaded.result(), name)
            named[f"link {copy_name(name, copy)}"] = link
    return Running(named, "TRACE" in defines, sum(map(map_memory_bytes, fds)))


def copy_name(program: str, copy: int) -> str:
    """What the kernel calls a copy of a program, counted from 0: 15 characters at most."""
    return f"{program}_{copy + 1}" if copy else program


def _fill_filters(fds: Mapping[str, int], kernel_filter: KernelFilter) -> None:
    for dev, partno in kernel_filter.devices:
        key = _U32.pack(dev) + _U32.pack(_ALL_PARTITIONS if partno is None else partno)
        update_map(fds["filter_device"], key, b"\1")
    for pid in kernel_filter.pids:
        update_map(fds["filter_pid"], _U32.pack(pid), b"\1")
    for comm in kernel_filter.comms:
        raw = comm.encode(errors="surrogateescape")[:15]
        update_map(fds["filter_comm"], raw.ljust(16, b"\0"), b"\1")
    for number, glob in enumerate(kernel_filter.comm_globs):
        update_map(fds["comm_globs"], _U32.pack(number), glob_masks(glob))
    for number, folder in enumerate(kernel_filter.cgroup_folders):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            update_map(fds["filter_cgroup"], _U32.pack(number), _U32.pack(fd))
        finally:
            os.close(fd)
