# SPDX-License-Identifier: GPL-2.0-only
"""Names the captures of a flight recorder, and leaves the newest ones."""

import contextlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from analyze.capture_name import SPOOL_SUFFIX, CaptureName
from iorec.record.triggers import Trigger
from iorec.store.conversions import Conversions
from iorec.store.folder import Folder, check_free

ASKED = "SIGUSR1"  # what fires without a condition


class FlightFiles:
    """The captures named after `output` and what fired, of which `kept` stay."""

    def __init__(self, folder: Folder, output: CaptureName, kept: int) -> None:
        self._folder = folder
        self._output = output
        self._kept = kept
        self._conversions = Conversions(is_forced=False)
        self._written: list[str] = []

    def check(self, triggers: Iterable[Trigger]) -> None:
        """Raises IorecError where no capture could be written: not only when one is due."""
        for condition in (ASKED, *(trigger.text for trigger in triggers)):
            capture = self._named(0, condition)
            check_free(self._folder, capture.files, is_forced=True)
        self._folder.create(capture.spool).close()
        self._folder.remove(capture.spool)

    def create(self, at_ns: int, condition: str) -> tuple[CaptureName, BinaryIO]:
        """The name of a capture for what fired then (since 1970), and its spool.

        One more than are to stay goes. Raises IorecError if there can be no spool.
        """
        capture = self._named(at_ns, condition)
        self._remove_old()
        return capture, self._folder.create_spool(capture.spool)

    def convert(self, capture: CaptureName) -> None:
        """Makes a capture of its spool, which is closed; another process does."""
        self._conversions.add(self._folder, capture)
        self._written.append(capture.name)

    def wait(self) -> dict[Path, str]:
        """Waits until the captures are written; the spools of those that are not, and why."""
        self._conversions.wait()
        return self._conversions.failures()

    @property
    def captures(self) -> tuple[Path, ...]:
        """Those that were written and are still there."""
        return tuple(
            self._folder.path / name for name in self._written if self._folder.exists(name)
        )

    def _named(self, at_ns: int, condition: str) -> CaptureName:
        second = datetime.fromtimestamp(at_ns // 10**9, UTC)
        words = condition.lower().replace("%", "").replace("µ", "u")
        slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
        name = f"{self._output.stem}-{second:%Y%m%dT%H%M%SZ}-{slug}{self._output.suffix}"
        return CaptureName(self._output.path.with_name(name))

    def _remove_old(self) -> None:
        """Leaves room for one more among the captures that may stay, of earlier runs too.

        A spool that never became a capture, as for lack of room, is one of them.
        """
        stem, suffix, spool = map(re.escape, (self._output.stem, self._output.suffix, SPOOL_SUFFIX))
        own = re.compile(rf"({stem}-\d{{8}}T\d{{6}}Z-[a-z0-9-]+{suffix})(?:{spool})?")
        names = sorted({found[1] for found in map(own.fullmatch, self._folder.names()) if found})
        for name in names[: max(0, len(names) - self._kept + 1)]:
            old = CaptureName(self._output.path.with_name(name))
            if self._conversions.forget(old) and not self._is_written(old):
                for file in (*old.files, old.spool):
                    with contextlib.suppress(OSError):
                        self._folder.remove(file)

    def _is_written(self, capture: CaptureName) -> bool:
        """Whether somebody else writes it now."""
        return self._folder.exists(capture.spool) and self._folder.is_locked(capture.spool)
