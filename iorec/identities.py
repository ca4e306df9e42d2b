"""Resolves the numbers by which kernel records name their submitters."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.arrow import to_arrow
from iorec.cgroups import CgroupNames
from iorec.escape import escape_name
from iorec.files import Files
from iorec.name_column import NameColumn
from iorec.plan import IDENTITIES_PER_CPU
from iorec.probes import Probes
from iorec.records import NO_IDENTITY

_REMEMBERED = 4 * IDENTITIES_PER_CPU
_ANNOUNCERS = ("start", "bio_queue")  # the program that announces them, of each layer


class Identities:
    """The identities that the kernel programs announced, by lane (layer and CPU) and number.

    Keeps the newest of each lane, four times as many as the kernel does: an I/O longer in flight
    than that has an unknown submitter.
    """

    def __init__(
        self,
        probes: Probes,
        files: Files,
        cgroup_paths: CgroupNames,
        comms: NameColumn,
        cgroups: NameColumn,
        charged: NameColumn,
    ) -> None:
        shape = (len(probes.identities), _REMEMBERED)
        self._probes = probes
        self._read = np.zeros(shape[0], np.int64)
        self._numbers = np.zeros(shape, np.int64)
        self._pids = np.zeros(shape, np.int32)
        self._tids = np.zeros(shape, np.int32)
        self._comms = np.zeros(shape, np.int32)
        self._cgroups = np.zeros(shape, np.int32)
        self._charged = np.zeros(shape, np.int32)
        self._inodes = np.zeros(shape, np.int64)
        self._file_numbers = np.zeros(shape, np.int32)
        self._files = files
        self._comm_names, self._cgroup_names, self._charged_names = comms, cgroups, charged
        self._cgroup_paths = cgroup_paths

    def read_new(self) -> None:
        self._cgroup_paths.refresh()
        counters = self._probes.counters
        newest = np.concatenate([counters[name]["identities"] for name in _ANNOUNCERS])
        newest = newest[: len(self._read)].astype(np.int64)
        for lane in np.flatnonzero(newest > self._read).tolist():
            last = int(newest[lane])
            first = max(int(self._read[lane]), last - IDENTITIES_PER_CPU) + 1
            for number in range(first, last + 1):
                self._remember(
                    lane, number, self._probes.identities[lane, number % IDENTITIES_PER_CPU]
                )
            self._read[lane] = last
        self._files.ask()

    def _remember(self, lane: int, number: int, row: np.void) -> None:
        place = lane, number % _REMEMBERED
        comm = bytes(row["comm"]).partition(b"\0")[0]
        self._numbers[place] = number
        self._pids[place], self._tids[place] = row["pid"], row["tid"]
        self._comms[place] = self._comm_names.code(escape_name(comm))
        path = self._cgroup_paths.resolve(int(row["cgroup"]), int(row["tid"]))
        self._cgroups[place] = self._cgroup_names.code(path)
        self._inodes[place] = row["inode"]
        self._file_numbers[place] = self._files.number(
            int(row["inode_dev"]), int(row["inode"]), int(row["generation"])
        )
        charged = int(row["charged_cgroup"])
        self._charged[place] = self._charged_names.code(
            self._cgroup_paths.resolve(charged) if charged else None
        )

    def columns(self, records: NDArray[np.void]) -> dict[str, pa.Array]:
        numbers = records["identity"].astype(np.int64)
        place = records["lane"] * np.int64(_REMEMBERED) + numbers % _REMEMBERED
        is_unknown = (numbers == NO_IDENTITY) | (self._numbers.take(place) != numbers)
        comms, cgroups = self._comms.take(place), self._cgroups.take(place)
        charged, files = self._charged.take(place), self._file_numbers.take(place)
        comms[is_unknown] = cgroups[is_unknown] = charged[is_unknown] = files[is_unknown] = -1
        inodes = self._inodes.take(place)
        return {
            "pid": to_arrow(self._pids.take(place), is_unknown),
            "tid": to_arrow(self._tids.take(place), is_unknown),
            "comm": self._comm_names.encode(comms),
            "cgroup": self._cgroup_names.encode(cgroups),
            "charged_cgroup": self._charged_names.encode(charged),
            "inode": to_arrow(inodes, is_unknown | (inodes == 0)),
            "file": self._files.encode(files),
        }
