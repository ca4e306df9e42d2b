# SPDX-License-Identifier: GPL-2.0-only
"""Begins and ends captures when the viewer asks for that."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError
from iorec.host.diskstats import StatPair
from iorec.kernel.probes import Probes
from iorec.record.beside import InFlight
from iorec.record.excerpt import Excerpt
from iorec.record.output import default_output
from iorec.record.prepared import Prepared
from iorec.record.recording import joined_error, left_spools_error
from iorec.record.segment import Start
from iorec.store.conversions import Conversions
from iorec.store.folder import Folder, check_free
from iorec.store.named import Named
from iorec.store.origin import Origin


class Requests(Protocol):
    """Where requests come from, and are answered; neither waits."""

    def take(self) -> bool:
        """Whether there was a request since the last time."""

    def answer(self, text: str, *, is_recording: bool) -> None:
        """Says what became of one."""


class OnRequest:
    """A request begins a capture in the folder, the next one ends it; see Beside."""

    def __init__(self, prepared: Prepared, folder: Folder, requests: Requests) -> None:
        self._prepared = prepared
        self._folder = folder
        self._requests = requests
        self._writing: Excerpt | None = None
        self._is_asked = False
        self._conversions = Conversions(is_forced=False)
        self._written: list[str] = []
        self._failures: list[IorecError] = []

    def begin(self, probes: Probes, origin: Origin) -> "OnRequest":
        """Gets to know what is recorded from."""
        self._probes, self._origin = probes, origin
        return self

    def wants_mark(self, *, is_idle: bool) -> bool:
        """Whether a capture is to begin, is being written or is to end."""
        self._is_asked = self._requests.take()
        return self._is_asked or self._writing is not None

    @property
    def wants_in_flight(self) -> bool:
        """Whether a capture may end."""
        return self._writing is not None

    def ask(self) -> None:
        """Nothing is asked for by signal."""

    def take(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Writes I/Os as they come."""
        if self._writing is not None:
            self._writing.write(batch, identity_lost)

    def mark(
        self,
        start: Start,
        hung: NDArray[np.void],
        over: NDArray[np.void],
        name: Callable[[NDArray[np.void]], InFlight],
        _: Callable[[], object],
    ) -> None:
        """Begins or ends a capture if that is asked for; there may be no room for more, too."""
        if self._writing is None:
            self._begin(start)
            return
        self._writing.sync()
        if self._is_asked or self._writing.is_over:
            failure = self._writing.end(start.stats, start.counters, name(hung), over)
            self._end(self._writing, failure)

    def finish(self, stats: StatPair, in_flight: InFlight, over: NDArray[np.void]) -> None:
        """Ends what is being written when recording has ended."""
        if self._writing is not None:
            self._end(self._writing, self._writing.end(stats, None, in_flight, over))

    def wait(self) -> IorecError | None:
        """Waits until the captures are written; returns what went wrong with any."""
        self._conversions.wait()
        failures = [*self._failures]
        if left := self._conversions.failures():
            failures.append(left_spools_error(left, is_forced=False))
        return joined_error(failures) if failures else None

    @property
    def captures(self) -> tuple[Path, ...]:
        """Those that were written and are still there."""
        return tuple(
            self._folder.path / name for name in self._written if self._folder.exists(name)
        )

    def _begin(self, start: Start) -> None:
        capture = default_output(self._folder.path)
        try:
            check_free(self._folder, capture.files, is_forced=False)
            spool = capture, self._folder.create_spool(capture.spool)
        except IorecError as error:
            self._requests.answer(error.message, is_recording=False)
            return
        self._writing = Excerpt(self._prepared, self._probes, self._origin, spool, start)
        self._requests.answer(f"recording to {capture.name}", is_recording=True)

    def _end(self, excerpt: Excerpt, failure: IorecError | None) -> None:
        """Another process makes a capture of the spool meanwhile."""
        self._writing = None
        name = excerpt.capture.name
        self._conversions.add(self._folder, excerpt.capture)
        self._written.append(name)
        if failure is not None:
            self._failures.append(
                IorecError(f"{name} is not whole: {failure.message}", failure.hint)
            )
        why = f", not whole: {failure.message}" if failure is not None else ""
        self._requests.answer(f"recorded {name}{why}", is_recording=False)
