"""What to load into the kernel: which programs, how large, and what they let through."""

from dataclasses import dataclass

LAYERS = ("request", "bio")  # by number: REQUEST_LAYER, BIO_LAYER of bpf/records.h
IDENTITIES_PER_CPU = 4096
SLOTS_PER_BUCKET = 8  # of bpf/records.h

# A name with `nested_` is the second one of the program without it (bpf/ledger.c).
# Completions first, so that nothing is seen to start whose end would be missed.
_PROGRAMS = {
    "request": {
        "on_complete": "block_rq_complete",
        "on_nested_complete": "block_rq_complete",
        "on_merge": "block_rq_merge",
        "on_back_merge": "block_bio_backmerge",
        "on_front_merge": "block_bio_frontmerge",
        "on_requeue": "block_rq_requeue",
        "on_issue": "block_rq_issue",
        "on_start": "block_io_start",
    },
    "bio": {
        "on_bio_complete": "block_bio_complete",
        "on_nested_bio_complete": "block_bio_complete",
        "on_complete_bios": "block_rq_complete",
        "on_nested_complete_bios": "block_rq_complete",
        "on_remap": "block_bio_remap",
        "on_bio_queue": "block_bio_queue",
    },
}
_PROGRAMS_OF_ALL_LAYERS = {"on_split": "block_split"}


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

    def defines(self) -> dict[str, str]:
        """The macros of bpf/filter.c for what is filtered."""
        found = {
            "FILTER_DEVICE": "1" if self.devices else "",
            "FILTER_PID": "1" if self.pids else "",
            "FILTER_COMM": "1" if self.comms or self.comm_globs else "",
            "COMM_GLOBS": str(len(self.comm_globs) or ""),
            "FILTER_CGROUPS": str(len(self.cgroup_folders) or ""),
            "FILTER_OPS": f"{sum(1 << op for op in set(self.ops)):#x}ULL" if self.ops else "",
            "MIN_LATENCY_NS": f"{self.min_latency_ns}ULL" if self.min_latency_ns else "",
            "EXCLUDED_PID": str(self.excluded_pid or ""),
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Plan:
    """What to load: the layers' names, and sizes that are powers of two."""

    kernel_filter: KernelFilter
    layers: tuple[str, ...]
    ring_bytes: int
    bucket_count: int
    wants_trace: bool = False

    @property
    def layer_count(self) -> int:
        """How many layers the maps have room for, by the highest number of one."""
        return 1 + max(LAYERS.index(layer) for layer in self.layers)

    @property
    def lanes_per_cpu(self) -> int:
        """How many programs take completions (bpf/ledger.c)."""
        return 6 if "bio" in self.layers else 2

    @property
    def programs(self) -> dict[str, str]:
        """The tracepoint of each program to load."""
        found = dict(_PROGRAMS_OF_ALL_LAYERS)
        for layer in LAYERS:
            if layer in self.layers:
                found |= _PROGRAMS[layer]
        return found
