# SPDX-License-Identifier: GPL-2.0-only
"""Finds the names that records need, while what they name is still there."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from iorec.host.processes import Processes
from iorec.kernel.layers import BIO, LAYER_NAMES
from iorec.kernel.layouts import NO_IDENTITY
from iorec.record.device_watch import DeviceWatch
from iorec.record.files import Files
from iorec.record.identities import Identities, Identity
from iorec.store.arrow import distinct
from iorec.store.named import (
    MOST_NAMES_BYTES,
    Disk,
    Named,
    Submitter,
    disk_keys,
    identity_keys,
)
from iorec.store.planes import MOST_RECORDS


class Namer:
    """Looks names up once for each new value, not for each I/O."""

    def __init__(
        self,
        devices: DeviceWatch,
        identities: Identities,
        files: Files,
        processes: Processes,
        cpu_count: int,
    ) -> None:
        self._devices = devices
        self._identities = identities
        self._files = files
        self._processes = processes
        self._cpus = cpu_count

    def name(
        self, records: NDArray[np.void], *, is_in_flight: bool = False
    ) -> Iterator[tuple[Named, Counter[str]]]:
        """The records in batches that a spool takes, one at least, in their order.

        With each, how many of its records of each layer lack their submitter because its
        announcement is lost.
        """
        self._devices.refresh()
        self._files.read_answers()
        for start in range(0, max(len(records), 1), MOST_RECORDS):
            yield from self._bounded(records[start : start + MOST_RECORDS], is_in_flight)

    def _bounded(
        self, records: NDArray[np.void], is_in_flight: bool
    ) -> Iterator[tuple[Named, Counter[str]]]:
        keys, places = distinct(identity_keys(records["source"], records["identity"]))
        known = self._identities.known(keys)
        submitters = {key: self._submitter(who) for key, who in known.items()}
        batch = Named(records, submitters, self._disks(records), is_in_flight)
        if len(records) > 1 and batch.names_bytes > MOST_NAMES_BYTES:
            half = len(records) // 2
            yield from self._bounded(records[:half], is_in_flight)
            yield from self._bounded(records[half:], is_in_flight)
            return
        lost: Counter[str] = Counter()
        if len(known) < len(keys):
            for key, count in zip(keys, np.bincount(places).tolist(), strict=True):
                if key not in known and key & 0xFFFFFFFF != NO_IDENTITY:
                    lost[LAYER_NAMES[(key >> 32) // self._cpus]] += count
        yield batch, lost

    def _submitter(self, who: Identity) -> Submitter:
        process = self._processes.describe(who.process)
        dirtier = who.dirtier and self._processes.describe(who.dirtier)
        return Submitter(
            who.pid,
            who.tid,
            who.inode,
            process.ppid,
            process.started_at,
            who.dirtier and who.dirtier.pid,
            who.comm,
            who.cgroup,
            who.charged_cgroup,
            self._files.name(who.file_number),
            self._devices.loop_on(who.inode_dev, who.inode or 0),
            process.name,
            process.cmdline,
            process.username,
            dirtier and dirtier.name,
            who.wait,
        )

    def _disks(self, records: NDArray[np.void]) -> dict[int, Disk]:
        """Those that I/Os are for, and those that sent bios down."""
        layers = records["source"] // self._cpus
        keys = set(distinct(disk_keys(records[layers <= BIO.number]))[0])
        is_bio = layers == BIO.number
        if is_bio.any():
            keys.update(dev << 8 for dev in distinct(records["bio_count"][is_bio])[0] if dev)
        return {key: self._devices.resolve(key >> 8, key & 0xFF) for key in keys}
