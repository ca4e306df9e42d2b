"""Resolves the numbers by which kernel records name their submitters."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.arrow import to_arrow
from iorec.cgroups import CgroupNames
from iorec.name_column import NameColumn
from iorec.probes import Probes
from iorec.programs import IDENTITIES_PER_CPU
from iorec.records import NO_IDENTITY

_REMEMBERED = 4 * IDENTITIES_PER_CPU


def escape_name(raw: bytes) -> str:
    """A name as text: bytes that are not UTF-8, and a backslash, as `\\xNN`."""
    return raw.replace(b"\\", b"\\x5c").decode(errors="backslashreplace")


class Identities:
    """The identities that the kernel programs announced, by CPU and number.

    Keeps the newest of each CPU, four times as many as the kernel does: an I/O longer in flight
    than that has an unknown submitter.
    """

    def __init__(self, probes: Probes, comms: NameColumn, cgroups: NameColumn) -> None:
        shape = (len(probes.counters), _REMEMBERED)
        self._probes = probes
        self._read = np.zeros(shape[0], np.int64)
        self._numbers = np.zeros(shape, np.int64)
        self._pids = np.zeros(shape, np.int32)
        self._tids = np.zeros(shape, np.int32)
        self._comms = np.zeros(shape, np.int32)
        self._cgroups = np.zeros(shape, np.int32)
        self._comm_names, self._cgroup_names = comms, cgroups
        self._cgroup_paths = CgroupNames()

    def read_new(self) -> None:
        newest = self._probes.counters["start"]["identities"].astype(np.int64)
        for cpu in np.flatnonzero(newest > self._read).tolist():
            last = int(newest[cpu])
            first = max(int(self._read[cpu]), last - IDENTITIES_PER_CPU) + 1
            for number in range(first, last + 1):
                self._remember(
                    cpu, number, self._probes.identities[cpu, number % IDENTITIES_PER_CPU]
                )
            self._read[cpu] = last

    def _remember(self, cpu: int, number: int, row: np.void) -> None:
        place = cpu, number % _REMEMBERED
        comm = bytes(row["comm"]).partition(b"\0")[0]
        self._numbers[place] = number
        self._pids[place], self._tids[place] = row["pid"], row["tid"]
        self._comms[place] = self._comm_names.code(escape_name(comm))
        path = self._cgroup_paths.resolve(int(row["cgroup"]))
        self._cgroups[place] = self._cgroup_names.code(path)

    def columns(self, records: NDArray[np.void]) -> dict[str, pa.Array]:
        numbers = records["identity"].astype(np.int64)
        place = records["cpu"] * np.int64(_REMEMBERED) + numbers % _REMEMBERED
        is_unknown = (numbers == NO_IDENTITY) | (self._numbers.take(place) != numbers)
        comms, cgroups = self._comms.take(place), self._cgroups.take(place)
        comms[is_unknown] = cgroups[is_unknown] = -1
        return {
            "pid": to_arrow(self._pids.take(place), is_unknown),
            "tid": to_arrow(self._tids.take(place), is_unknown),
            "comm": self._comm_names.encode(comms),
            "cgroup": self._cgroup_names.encode(cgroups),
        }
