# SPDX-License-Identifier: GPL-2.0-only
"""Says what a recorder tells whoever makes captures beside its own one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from iorec.host.diskstats import StatPair
from iorec.record.segment import Start
from iorec.store.named import Named

InFlight = Iterable[tuple[Named, Mapping[str, int]]]


class Beside(Protocol):
    """Is told of each batch, of moments at which all counters were read, and of the end."""

    def wants_mark(self, *, is_idle: bool) -> bool:
        """Whether `mark` is to be called; asked at the start, and then once a second.

        It is idle if no I/O has ended since the last mark, and none is in flight.
        """

    @property
    def wants_in_flight(self) -> bool:
        """Whether `mark` is to be told what is in flight."""

    def ask(self) -> None:
        """Hears that SIGUSR1 has come."""

    def take(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Gets I/Os as they come."""

    def mark(
        self,
        start: Start,
        hung: NDArray[np.void],
        over: NDArray[np.void],
        name: Callable[[NDArray[np.void]], InFlight],
        drain: Callable[[], object],
    ) -> None:
        """Takes note of a moment at which all counters were read.

        `hung` and `over` are those of split_in_flight, `name` finds the names of the first ones;
        `drain` is to be called now and then by what takes seconds.
        """

    def finish(self, stats: StatPair, in_flight: InFlight, over: NDArray[np.void]) -> None:
        """Ends what is being written when recording has ended."""
