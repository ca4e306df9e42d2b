# SPDX-License-Identifier: GPL-2.0-only
"""Resolves the numbers by which kernel records name their submitters."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iorec.host.cgroups import CgroupNames
from iorec.host.escape import escape_name
from iorec.host.processes import Processes, Seen
from iorec.kernel.layers import WAIT
from iorec.kernel.symbols import KernelSymbols
from iorec.record.files import Files
from iorec.store.named import identity_keys

# Some 300 bytes each. Beyond that the kernel is asked to announce those in use again.
_MOST_IDENTITIES = 100_000
# Of one of a wait, the innermost first (struct identity of bpf/records.h).
_FRAMES = ("inode", "charged_cgroup", "dirtied_by")


class Identity(NamedTuple):
    """Who submitted an I/O, and for whom."""

    pid: int
    tid: int
    comm: str
    cgroup: str
    charged_cgroup: str | None
    inode: int | None
    inode_dev: int
    file_number: int
    process: Seen
    dirtier: Seen | None
    wait: str | None


class Waits:
    """Names where threads wait, which the identities of waits have in place of files."""

    def __init__(self, symbols: KernelSymbols | None, cpu_count: int) -> None:
        self._symbols = symbols
        self._cpus = cpu_count

    def take(self, announcements: NDArray[np.void]) -> list[str | None]:
        """Where each of them waits, if it does; they say nothing of that any more."""
        found: list[str | None] = [None] * len(announcements)
        if self._symbols is None:
            return found
        who = announcements["identity"]
        for place in np.flatnonzero(announcements["source"] // self._cpus == WAIT.number).tolist():
            found[place] = self._symbols.call_chain(int(who[name][place]) for name in _FRAMES)
            for name in _FRAMES:
                who[name][place] = 0
        return found


class Identities:
    """The identities that the kernel programs announced.

    A number is never used twice for a source (layer and CPU), so none can be taken for another.
    """

    def __init__(
        self, files: Files, cgroups: CgroupNames, processes: Processes, waits: Waits
    ) -> None:
        self._known: dict[int, Identity] = {}  # by identity_keys
        self._files = files
        self._cgroups = cgroups
        self._processes = processes
        self._waits = waits
        self._comms: dict[bytes, str] = {}
        self._outdated: list[int] = []

    def read(self, announcements: NDArray[np.void]) -> None:
        """Takes in what was drained, before the records that were."""
        if not len(announcements):
            return
        self._cgroups.refresh()
        keys = identity_keys(announcements["source"], announcements["number"]).tolist()
        waits = self._waits.take(announcements)
        rows = announcements["identity"].tolist()
        for key, row, wait in zip(keys, rows, waits, strict=True):
            cgroup, charged, inode, inode_dev, generation, pid, tid, comm, *process_of = row
            _, start_ns, leader, ppid, uid, exec_id, _, by = process_of
            dirtier = self._known.get(by)
            leader_comm = bytes(leader).partition(b"\0")[0]
            process = Seen(pid, start_ns, ppid, uid, leader_comm, exec_id)
            self._processes.describe(process)  # while it is there
            self._known[key] = Identity(
                pid,
                tid,
                self._comm(bytes(comm)),
                self._cgroups.resolve(cgroup, tid),
                self._cgroups.resolve(charged) if charged else None,
                inode or None,
                inode_dev if inode or not generation else 0,  # not of a character device
                self._files.number(inode_dev, inode, generation),
                process,
                dirtier and dirtier.process,
                wait,
            )
        self._files.ask()

    def known(self, keys: Iterable[int]) -> dict[int, Identity]:
        """Those of some keys, without the ones whose announcement is lost."""
        return {key: self._known[key] for key in keys if key in self._known}

    @property
    def has_too_many(self) -> bool:
        """Whether it is time to begin a new epoch."""
        return not self._outdated and len(self._known) > _MOST_IDENTITIES

    @property
    def is_outdated(self) -> bool:
        """Whether there are some of an earlier epoch."""
        return bool(self._outdated)

    def begin_epoch(self) -> None:
        """Notes that the kernel announces again, from now on, what is still in use."""
        self._outdated = list(self._known)

    def forget_outdated(self, in_use: Iterable[int]) -> None:
        """Forgets those of earlier epochs but the keys of I/Os that are still in flight.

        Of all other I/Os that use them the records must have been resolved.
        """
        kept = {key: self._known[key] for key in in_use if key in self._known}
        for key in self._outdated:
            del self._known[key]
        self._known |= kept
        self._outdated = []

    def _comm(self, raw: bytes) -> str:
        if raw not in self._comms:
            if len(self._comms) >= _MOST_IDENTITIES:
                self._comms.clear()
            self._comms[raw] = escape_name(raw.partition(b"\0")[0])
        return self._comms[raw]
