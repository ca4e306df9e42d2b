# SPDX-License-Identifier: GPL-2.0-only
"""What a recorder does at a mark, without a kernel."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iorec.host.notes import Notes
from iorec.kernel.layouts import RECORD, SLOT
from iorec.record import recorder
from iorec.record.recorder import Recorder


class Beside:
    """Wants to know what is in flight."""

    wants_in_flight = True

    def wants_mark(self, *, is_idle: bool) -> bool:
        return True

    def mark(self, *_: object) -> None:
        self.was_marked = True


def test_what_begins_while_disks_are_asked_whether_they_are_idle_is_not_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that was idle before it got an I/O says nothing of that I/O."""
    asked: dict[str, int] = {}

    def idle_disks() -> set[int]:
        asked["disks"] = time.monotonic_ns()
        return {7}

    def split(_: object, idle: set[int], idle_at_ns: int) -> Any:
        asked["idle_at"] = idle_at_ns
        assert idle == {7}
        return np.empty(0, RECORD), np.empty(0, RECORD)

    monkeypatch.setattr(recorder, "read_idle_disks", idle_disks)
    monkeypatch.setattr(recorder, "split_in_flight", split)
    monkeypatch.setattr(recorder, "busy_slots", lambda _: np.zeros(1, SLOT))
    monkeypatch.setattr(Recorder, "_cut", lambda _: (None, None))
    tested: Any = Recorder.__new__(Recorder)
    tested._beside = Beside()
    tested._drained = tested._marked = tested._least_ns = 0
    tested._probes = tested._drain = None
    tested._notes = Notes()
    tested._namer = None
    tested._segment = SimpleNamespace(start_now=lambda *_: None)
    tested._mark()
    assert tested._beside.was_marked
    assert asked["idle_at"] <= asked["disks"]
