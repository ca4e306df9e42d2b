# SPDX-License-Identifier: GPL-2.0-only
"""Gives access to the attached kernel programs and the maps they write."""

import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iorec.kernel.layouts import BUCKET, CONTROL, GAP, IS_AWAKE, LANE, TALLY
from iorec.kernel.libbpf import recursion_misses
from iorec.kernel.load import possible_cpus
from iorec.kernel.loader import Loaded
from iorec.kernel.plan import Plan, gap_rows
from iorec.kernel.ring import Ring

_TALLIES_PER_CPU = 256


@dataclass
class Probes:
    """The attached programs and the maps they write, as arrays; a context manager.

    `lanes` is shaped (lanes, CPUs) and `gaps` (lanes, CPUs, rows), see bpf/ledger.c; `lanes_of`
    gives the lanes of a program. `in_flight` has one row per bucket. Reading them needs no
    privilege. `ring_fd` becomes readable, for an edge-triggered epoll, when the kernel wakes the
    recorder.
    """

    layers: tuple[str, ...]
    lanes_of: dict[str, range]
    ring: Ring
    ring_fd: int
    control: NDArray[np.void]
    lanes: NDArray[np.void]
    in_flight: NDArray[np.void]
    tallies: NDArray[np.void]
    gaps: NDArray[np.void]
    has_trace: bool
    memory_bytes: int
    _programs: dict[str, int]
    _links: dict[str, int]

    def __post_init__(self) -> None:
        # Field by field: numpy makes an object of a row before it sets one of its fields.
        self._alarm = {name: self.control[name] for name in CONTROL.names or ()}

    def __enter__(self) -> "Probes":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
        for fd in self._programs.values():
            os.close(fd)
        self._programs.clear()
        os.close(self.ring_fd)

    @property
    def cpu_count(self) -> int:
        """CPUs that the machine may have."""
        return int(self.lanes.shape[1])

    def detach(self) -> None:
        """Detaches every program; afterwards nothing writes the maps any more."""
        while self._links:
            os.close(self._links.popitem()[1])

    def set_alarm(self, wake_bytes: int, *, for_identities: bool) -> bool:
        """Asks the kernel to wake the recorder, once; returns whether it should not even sleep.

        It is woken when so much is in the ring or, if asked, for new identities.
        """
        alarm = self._alarm
        alarm["wakes_for_identities"][0] = for_identities
        alarm["wake_bytes"][0] = wake_bytes
        is_due = self.ring.backlog_bytes() >= wake_bytes
        return is_due or (for_identities and bool(alarm["has_identities"][0]))

    def clear_alarm(self) -> None:
        """Ends what set_alarm() began; from now on identities are new."""
        self._alarm["wake_bytes"][0] = IS_AWAKE
        self._alarm["has_identities"][0] = False

    def missed_runs(self) -> dict[str, int]:
        """How often the kernel skipped each program, and each copy of one, as it was running.

        {} where the kernel does not count it (before 5.12, 9ed9e9ba2337) or does not tell a process
        without privileges (before 5.19, c8644cd0efe7).
        """
        missed = {}
        for name, fd in self._programs.items():
            misses = recursion_misses(fd)
            if misses is not None:
                missed[name] = misses
        return missed


def open_probes(plan: Plan, loaded: Loaded) -> Probes:
    """Maps what was loaded; recording begins when `is_recording` of `control` is set."""
    cpus = possible_cpus()
    lane_count = max(lanes.stop for lanes in plan.lanes.values())

    def array(name: str, dtype: Any, count: int) -> NDArray[Any]:
        dtype = np.dtype(dtype)
        size = -(-count * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = mmap.mmap(loaded.maps[name], size, mmap.MAP_SHARED)
        return np.frombuffer(pages, dtype, count)

    probes = Probes(
        layers=plan.layers,
        lanes_of=plan.lanes,
        ring=Ring(loaded.maps["records"], plan.ring_bytes),
        ring_fd=loaded.maps["records"],
        control=array("control", CONTROL, 1),
        lanes=array("lanes", LANE, lane_count * cpus).reshape(lane_count, cpus),
        in_flight=array("in_flight", BUCKET, plan.bucket_count),
        tallies=array("tallies", TALLY, cpus * _TALLIES_PER_CPU),
        gaps=array("gaps", GAP, lane_count * cpus * gap_rows(cpus)).reshape(lane_count, cpus, -1),
        has_trace=loaded.has_trace,
        memory_bytes=loaded.memory_bytes,
        _programs=loaded.programs,
        _links=loaded.links,
    )
    for name in loaded.maps.keys() - {"records"}:
        os.close(loaded.maps[name])
    return probes
