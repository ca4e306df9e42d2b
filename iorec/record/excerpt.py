# SPDX-License-Identifier: GPL-2.0-only
"""Writes a capture that begins and ends while its recorder goes on."""

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.metadata import FiredTrigger
from iorec.host.diskstats import StatPair
from iorec.kernel.probes import Probes
from iorec.record.beside import InFlight
from iorec.record.ledger import Snapshot
from iorec.record.prepared import Prepared
from iorec.record.segment import Segment, Start
from iorec.store.named import Named
from iorec.store.origin import Origin
from iorec.store.spool import Spool


class Excerpt:
    """A capture from one mark to another, in its spool until then."""

    def __init__(
        self,
        prepared: Prepared,
        probes: Probes,
        origin: Origin,
        spool: tuple[CaptureName, BinaryIO],
        first: Start,
        trigger: FiredTrigger | None = None,
    ) -> None:
        """`spool` is that of a capture, and empty."""
        self.capture, self._part = spool
        self._most_bytes = prepared.settings.limits.max_size_bytes
        self._segment = Segment(prepared, probes, Spool(self._part, origin), first, trigger)

    @property
    def is_over(self) -> bool:
        """Whether there is no room for more of it."""
        most = self._most_bytes
        is_full = most is not None and self._segment.size_bytes >= most
        return self._segment.failure is not None or is_full

    def write(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Writes finished I/Os; see Segment."""
        self._segment.write(batch, identity_lost)

    def sync(self) -> None:
        """Has what was written outlive a power cut, and looks at the clock; once a second."""
        self._segment.read_clock()
        self._segment.sync()

    def end(
        self,
        stats: StatPair,
        counters: Snapshot | None,
        in_flight: InFlight,
        over: NDArray[np.void],
    ) -> IorecError | None:
        """Ends it at those counters, or at the end of recording; returns why it is not whole."""
        began_ns = self._segment.start.monotonic_ns
        unseen = over[over["start_ns"] >= np.uint64(began_ns)]
        self._segment.ledger.add("missed_completion", unseen)
        self._segment.end(in_flight, stats, None, counters)
        self._part.close()
        return self._segment.failure
