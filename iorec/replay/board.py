# SPDX-License-Identifier: GPL-2.0-only
"""Maps the memory in which the feeder leaves rows for the loop, in both processes."""

import mmap
from dataclasses import dataclass

from iorec.replay.layout import BOARD_PLACES, SLOT_BYTES, SLOTS


@dataclass(frozen=True)
class Board:
    """Shared mappings: `numbers` are the places of layout.py, the others have one per slot.

    `slots` are those of the ring itself in an open loop.
    """

    memory: mmap.mmap
    slots: mmap.mmap
    due: mmap.mmap
    think: mmap.mmap
    waits_for: mmap.mmap

    @property
    def numbers(self) -> memoryview:
        """How far both sides are."""
        return memoryview(self.memory).cast("q")


def make_board(slots: mmap.mmap | None) -> Board:
    """New mappings; with slots of its own if there are none."""
    return Board(
        _shared(8 * BOARD_PLACES),
        slots or _shared(SLOT_BYTES * SLOTS),
        *(_shared(8 * SLOTS) for _ in range(3)),
    )


def _shared(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
