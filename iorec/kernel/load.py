# SPDX-License-Identifier: GPL-2.0-only
"""Loads and attaches the kernel programs."""

import contextlib
import mmap
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from analyze.errors import IorecError
from iorec.host.cgroups import is_io_controller_unified
from iorec.kernel.btf import KernelTypes
from iorec.kernel.comm_glob import glob_masks
from iorec.kernel.compile import compile_programs, import_bcc, instructions_of
from iorec.kernel.header import kernel_header
from iorec.kernel.libbpf import attach_program, has_cmpxchg, load_tracing_program
from iorec.kernel.plan import KernelFilter, Plan

MAPS = ("records", "control", "lanes", "in_flight", "tallies", "gaps")

_CALLS_ITSELF = "bios_complete"  # by the table of tail calls
# No other number in the programs, see copy_number() in bpf/ledger.c.
_COPY_MARK = 0x2EC0_17D5
_START_BEFORE_6_5 = "block_getrq"


def load_programs(plan: Plan) -> tuple[dict[str, int], bool]:
    """Compiles, loads and attaches the programs of the plan.

    Returns file descriptors by name (`map NAME`, `program NAME`, `link NAME`), and whether they
    trace. Raises IorecError for whatever keeps them from being compiled, loaded or attached.
    """
    bcc = import_bcc()
    tracepoints = dict(plan.programs)
    with KernelTypes() as kernel:
        header = kernel_header(kernel, has_bios="bio" in plan.layers)
        if "rq_start" in tracepoints and not kernel.has_tracepoint(tracepoints["rq_start"]):
            tracepoints["rq_start"] = _START_BEFORE_6_5
        targets = {name: kernel.tracepoint_id(place) for name, place in tracepoints.items()}
    defines = defines_of(plan)
    if plan.wants_trace:
        with contextlib.suppress(IorecError):
            return _load_with(bcc, plan, header, {**defines, "TRACE": "1"}, targets), True
    return _load_with(bcc, plan, header, defines, targets), False


def defines_of(plan: Plan) -> dict[str, str]:
    """The -D flags of the programs."""
    return {
        "CPUS": str(possible_cpus()),
        "LAYERS": str(plan.layer_count),
        "LANES": str(max(lanes.stop for lanes in plan.lanes.values())),
        **{f"{name.upper()}_LANE": str(lanes.start) for name, lanes in plan.lanes.items()},
        **{f"RECORDS_{layer.upper()}S": "1" for layer in plan.layers},
        **({"IS_IO_CONTROLLER_UNIFIED": "1"} if is_io_controller_unified() else {}),
        "BUCKETS": str(plan.bucket_count),
        "RING_PAGES": str(plan.ring_bytes // mmap.PAGESIZE),
        "COPY_MARK": str(_COPY_MARK),
        "PAGE_SIZE": str(mmap.PAGESIZE),
        **plan.kernel_filter.defines(),
        **({"HAVE_CMPXCHG": "1"} if has_cmpxchg() else {}),
    }


def possible_cpus() -> int:
    # A list of ranges such as 0-3,8-11; maps are indexed by number, so the highest one counts.
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def _load_with(
    bcc: Any, plan: Plan, header: str, defines: Mapping[str, str], targets: Mapping[str, int]
) -> dict[str, int]:
    module = compile_programs(bcc, header, defines)
    _fill_filters(module, plan.kernel_filter)
    named = {f"map {name}": module[name.encode()].map_fd for name in MAPS}
    # The verifier takes 0.2 s for the longest of them.
    with ThreadPoolExecutor() as pool:
        loading = {
            name: [
                pool.submit(load_program, bcc, module, name, target, copy)
                for copy in range(plan.copy_count(name))
            ]
            for name, target in targets.items()
        }
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            program = loaded.result()
            if name == _CALLS_ITSELF:
                table = module[b"complete_more_bios"]
                table[table.Key(copy)] = table.Leaf(program)
                # Without a descriptor of it, the kernel empties the table (prog_array_map_clear).
                named["link complete_more_bios"] = table.map_fd
            named[f"program {copy_name(name, copy)}"] = program
    # In the order of their copies: each is called after those attached before.
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            link = attach_program(loaded.result(), name)
            named[f"link {copy_name(name, copy)}"] = link
    return named


def copy_name(program: str, copy: int) -> str:
    """What the kernel calls a copy of a program, counted from 0: 15 characters at most."""
    return f"{program}_{copy + 1}" if copy else program


def load_program(bcc: Any, module: Any, name: str, tracepoint_id: int, copy: int = 0) -> int:
    """A file descriptor of a compiled program, which the verifier has let through."""
    instructions = instructions_of(bcc, module, name)
    if struct.pack("=I", _COPY_MARK) not in instructions and copy:
        raise IorecError(f"the program {name} has no mark", "please report this as a defect")
    marked = instructions.replace(struct.pack("=I", _COPY_MARK), struct.pack("=I", copy))
    return load_tracing_program(copy_name(name, copy), marked, tracepoint_id)


def _fill_filters(module: Any, kernel_filter: KernelFilter) -> None:
    all_partitions = 0xFFFFFFFF
    if kernel_filter.devices:
        table = module[b"filter_device"]
        for dev, partno in kernel_filter.devices:
            key = table.Key(dev, all_partitions if partno is None else partno)
            table[key] = table.Leaf(1)
    if kernel_filter.pids:
        table = module[b"filter_pid"]
        for pid in kernel_filter.pids:
            table[table.Key(pid)] = table.Leaf(1)
    if kernel_filter.comms:
        table = module[b"filter_comm"]
        for comm in kernel_filter.comms:
            table[table.Key(comm.encode(errors="surrogateescape")[:15])] = table.Leaf(1)
    for index, glob in enumerate(kernel_filter.comm_globs):
        table = module[b"comm_globs"]
        table[table.Key(index)] = table.Leaf.from_buffer_copy(glob_masks(glob))
    for index, folder in enumerate(kernel_filter.cgroup_folders):
        module[b"filter_cgroup"][index] = folder
