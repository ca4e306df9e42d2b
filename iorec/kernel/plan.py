# SPDX-License-Identifier: GPL-2.0-only
"""What to load into the kernel: which programs, how large, and what they let through."""

from dataclasses import dataclass

from iorec.kernel.layers import (
    LAYERS,
    MERGE_COUNTERS,
    PROGRAMS_OF_BLOCK_LAYERS,
    UNINTERRUPTED,
    layers_of,
)

SLOTS_PER_BUCKET = 8  # of bpf/records.h
# Interrupts complete I/Os: one of a device may come in the middle of a softirq's completions, and
# that in the middle of a task's.
_COPIES_OF_INTERRUPTIBLE = 3
_COPIES_IF_PREEMPTIBLE = 4  # MOST_COPIES of bpf/records.h


def gap_rows(cpus: int) -> int:
    """How many gaps each lane can hold on a machine of so many CPUs: 2 MiB in all, or 16 each."""
    return max(16, min(128, 4096 // cpus))


def gap_ns(cpus: int) -> int:
    """Losses nearer than this are one gap, so that a lane's gaps last longer than a second."""
    return 1_280_000_000 // gap_rows(cpus)


def cached_identities(cpus: int, layer_count: int = 2) -> int:
    """How many identities of a layer each CPU remembers: a power of two, 12 MiB in all or less."""
    most = 65536 // max(layer_count, 2) // cpus
    return 1 << (max(1, min(1024, most)).bit_length() - 1)


@dataclass(frozen=True)
class KernelFilter:
    """What the kernel programs let through; an empty collection lets everything through."""

    devices: tuple[tuple[int, int | None], ...] = ()  # (dev, partition number or None for all)
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    comm_globs: tuple[str, ...] = ()
    cgroup_folders: tuple[str, ...] = ()
    ops: tuple[int, ...] = ()
    min_latency_ns: int | None = None
    excluded_pid: int | None = None
    excluded_finder_pid: int | None = None  # and its children
    pid_namespace: tuple[int, int] | None = None  # its device and inode, if it is not the kernel's

    def defines(self) -> dict[str, str]:
        """The macros of bpf/filter.c for what is filtered."""
        namespace_dev, namespace_inode = self.pid_namespace or ("", "")
        found = {
            "FILTER_DEVICE": "1" if self.devices else "",
            "FILTER_PID": "1" if self.pids else "",
            "FILTER_COMM": "1" if self.comms or self.comm_globs else "",
            "COMM_GLOBS": str(len(self.comm_globs) or ""),
            "FILTER_CGROUPS": str(len(self.cgroup_folders) or ""),
            "FILTER_OPS": f"{sum(1 << op for op in set(self.ops)):#x}ULL" if self.ops else "",
            "MIN_LATENCY_NS": f"{self.min_latency_ns}ULL" if self.min_latency_ns else "",
            "EXCLUDES_PID": "1" if self.excluded_pid else "",
            "PID_NAMESPACE_DEV": str(namespace_dev),
            "PID_NAMESPACE_INODE": str(namespace_inode),
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Plan:
    """What to load: the layers' names, and sizes that are powers of two."""

    kernel_filter: KernelFilter
    layers: tuple[str, ...]
    ring_bytes: int
    bucket_count: int
    is_preemptible: bool  # tracepoints are: programs may be preempted
    is_io_controller_unified: bool = False  # I/O is charged to cgroups of version 2
    wants_trace: bool = False
    calls: tuple[str, ...] = ()  # of the layer syscall

    @property
    def layer_count(self) -> int:
        """How many layers the maps have room for, by the highest number of one."""
        return 1 + max(layer.number for layer in layers_of(self.layers))

    @property
    def programs(self) -> dict[str, str]:
        """The tracepoint of each program to load."""
        found = dict(PROGRAMS_OF_BLOCK_LAYERS) if self.has_block_layer else {}
        for layer in layers_of(self.layers):
            found |= layer.programs
        return found

    @property
    def has_block_layer(self) -> bool:
        """Whether any of the layers is below the file systems."""
        return any(layer.is_block for layer in layers_of(self.layers))

    def copy_count(self, program: str) -> int:
        """How often the program is loaded (bpf/iorec.c)."""
        if self.is_preemptible and program not in (*MERGE_COUNTERS, *UNINTERRUPTED):
            return _COPIES_IF_PREEMPTIBLE
        is_interruptible = any(program in layer.complete for layer in LAYERS if layer.is_block)
        return _COPIES_OF_INTERRUPTIBLE if is_interruptible else 1

    @property
    def lanes(self) -> dict[str, range]:
        """The lanes of each program, one for each copy."""
        found, end = {}, 0
        for program in self.programs:
            found[program] = range(end, end + self.copy_count(program))
            end = found[program].stop
        return found
