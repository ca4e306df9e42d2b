# SPDX-License-Identifier: GPL-2.0-only
"""What a tracer costs while nothing happens."""

import time
from contextlib import ExitStack
from typing import Any

from tests.bench.load import loop_device, process_s
from tests.bench.stats import ratio, spread
from tests.bench.tracers import TRACERS, running

_NAMES = ("iorec", "bcc", "bpftrace")
_SPANS, _SPAN_S = 10, 5
_SETTLE_S = 3


def measure() -> dict[str, Any]:
    """CPU seconds in an hour, from spans in which all of them run side by side."""
    spent: dict[str, list[float]] = {name: [] for name in _NAMES}
    with loop_device() as (_, folder), ExitStack() as stack:
        pids = {}
        for name in _NAMES:
            place = folder / name
            place.mkdir()
            pids[name] = stack.enter_context(running(TRACERS[name], place)).pid
        time.sleep(_SETTLE_S)
        for _ in range(_SPANS):
            before = {name: process_s(pid) for name, pid in pids.items()}
            time.sleep(_SPAN_S)
            for name, pid in pids.items():
                spent[name].append((process_s(pid) - before[name]) / _SPAN_S * 3600)
    return {
        **{f"{name}_s_per_hour": spread(values) for name, values in spent.items()},
        "ratio": ratio(spent["iorec"], spent["bcc"]),
    }
