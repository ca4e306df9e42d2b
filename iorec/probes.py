"""Gives access to the attached kernel programs and the maps they write."""

import ctypes
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iorec.btf import libbpf
from iorec.loader import Loaded
from iorec.plan import IDENTITIES_PER_CPU, SLOTS_PER_BUCKET, Plan
from iorec.programs import possible_cpus
from iorec.records import (
    COMPLETE_COUNTERS,
    CONTROL,
    COUNTERS,
    GAP,
    IDENTITY,
    IS_AWAKE,
    RECORD,
    SLOT,
    TALLY,
)
from iorec.ring import Ring

_TALLIES_PER_LANE = 256
_GAPS_PER_LANE = 256


class _ProgInfo(ctypes.Structure):
    """struct bpf_prog_info of include/uapi/linux/bpf.h."""

    _fields_ = (
        ("before", ctypes.c_uint8 * 192),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
    )


@dataclass
class Probes:
    """The attached programs and the maps they write, as arrays; a context manager.

    `counters` has one row per CPU, `completions` one per lane (see bpf/ledger.c), `in_flight` one
    per slot; `identities` is shaped (layers x CPUs, rows), `gaps` (lanes, rows). Reading them needs
    no privilege. `ring_fd` becomes readable, for an edge-triggered epoll, when the kernel wakes the
    recorder.
    """

    layers: tuple[str, ...]
    ring: Ring
    ring_fd: int
    control: NDArray[np.void]
    counters: NDArray[np.void]
    completions: NDArray[np.void]
    in_flight: NDArray[np.void]
    identities: NDArray[np.void]
    tallies: NDArray[np.void]
    gaps: NDArray[np.void]
    has_trace: bool
    _programs: dict[str, int]
    _links: dict[str, int]

    def __enter__(self) -> "Probes":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
        for fd in self._programs.values():
            os.close(fd)
        self._programs.clear()
        os.close(self.ring_fd)

    def detach(self) -> None:
        """Detaches every program; afterwards nothing writes the maps any more."""
        while self._links:
            os.close(self._links.popitem()[1])

    def set_alarm(self, wake_bytes: int, *, for_identities: bool) -> bool:
        """Has the kernel wake the recorder, once; whether it should not even go to sleep.

        It is woken when so much is in the ring or, if asked, for new identities.
        """
        control = self.control[0]
        control["wakes_for_identities"] = for_identities
        control["wake_bytes"] = wake_bytes
        is_due = self.ring.backlog_bytes() >= wake_bytes
        return is_due or (for_identities and bool(control["has_identities"]))

    def clear_alarm(self) -> None:
        """Ends what set_alarm() began; from now on identities are new."""
        self.control[0]["wake_bytes"] = IS_AWAKE
        self.control[0]["has_identities"] = False

    def missed_runs(self) -> dict[str, int]:
        """How often the kernel skipped each program because it was running on that CPU already.

        {} where the kernel does not count it (before 5.12, 9ed9e9ba2337) or does not tell a process
        without privileges (before 5.19, c8644cd0efe7).
        """
        missed = {}
        for name, fd in self._programs.items():
            info = _ProgInfo()
            size = ctypes.c_uint32(ctypes.sizeof(info))
            if libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)) == 0:
                missed[name] = int(info.recursion_misses)
        return missed


def open_probes(plan: Plan, loaded: Loaded) -> Probes:
    """Maps what was loaded; recording begins when `is_recording` of `control` is set."""
    cpus = possible_cpus()
    lanes = plan.lanes_per_cpu * cpus

    def array(name: str, dtype: Any, count: int) -> NDArray[Any]:
        dtype = np.dtype(dtype)
        size = -(-count * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = mmap.mmap(loaded.maps[name], size, mmap.MAP_SHARED)
        return np.frombuffer(pages, dtype, count)

    probes = Probes(
        layers=plan.layers,
        ring=Ring(loaded.maps["records"], plan.ring_bytes, RECORD),
        ring_fd=loaded.maps["records"],
        control=array("control", CONTROL, 1),
        counters=array("counters", COUNTERS, cpus),
        completions=array("completions", COMPLETE_COUNTERS, lanes),
        in_flight=array("in_flight", SLOT, plan.bucket_count * SLOTS_PER_BUCKET),
        identities=array(
            "identities", IDENTITY, plan.layer_count * cpus * IDENTITIES_PER_CPU
        ).reshape(-1, IDENTITIES_PER_CPU),
        tallies=array("tallies", TALLY, (lanes + cpus) * _TALLIES_PER_LANE),
        gaps=array("gaps", GAP, lanes * _GAPS_PER_LANE).reshape(lanes, -1),
        has_trace=loaded.has_trace,
        _programs=loaded.programs,
        _links=loaded.links,
    )
    for name in loaded.maps.keys() - {"records"}:
        os.close(loaded.maps[name])
    return probes
