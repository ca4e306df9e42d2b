# SPDX-License-Identifier: GPL-2.0-only
"""Takes the I/Os that have not completed out of the kernel's table."""

import numpy as np
from numpy.typing import NDArray

from iorec.kernel.layouts import NO_ISSUE, RECORD
from iorec.kernel.names import OP_CACHE_FLUSH
from iorec.kernel.probes import Probes


def busy_slots(probes: Probes) -> NDArray[np.void]:
    """A copy of the slots (dtype SLOT) of the I/Os in flight that are to be recorded."""
    return _slots(probes, is_filtered=False)


def split_in_flight(
    probes: Probes, idle: set[int], idle_at_ns: int
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Records (dtype RECORD) of I/Os that hang, and of those that are over, unseen by any program.

    Of a disk that said that it had no I/O in flight (its number is in `idle`), none is that it was
    handed before, but for writes whose data are done: what they wait for is a flush, which the disk
    does not count.
    """
    busy = busy_slots(probes)
    records = _records(busy)
    is_over = _is_over(busy, records, probes.cpu_count, idle, idle_at_ns)
    return records[~is_over], records[is_over]


def filtered_and_over(probes: Probes, idle: set[int], idle_at_ns: int) -> NDArray[np.void]:
    """Records of those that are over, unseen by any program, and were filtered out."""
    busy = _slots(probes, is_filtered=True)
    records = _records(busy)
    found: NDArray[np.void] = records[_is_over(busy, records, probes.cpu_count, idle, idle_at_ns)]
    return found


def _slots(probes: Probes, *, is_filtered: bool) -> NDArray[np.void]:
    slots = probes.in_flight["slots"]
    is_taken = (probes.in_flight["keys"] != 0) & (slots["is_part"] == 0)
    found: NDArray[np.void] = slots[is_taken & (slots["is_filtered"] == is_filtered)].copy()
    return found


def _is_over(
    busy: NDArray[np.void],
    records: NDArray[np.void],
    cpu_count: int,
    idle: set[int],
    idle_at_ns: int,
) -> NDArray[np.bool_]:
    ops = records["cmd_flags"] & np.uint32(0xFF)
    issue_ns = records["start_ns"] + records["queue_ns"]
    is_over = (records["queue_ns"] != NO_ISSUE) & (issue_ns < idle_at_ns)
    is_over &= np.isin(records["dev"], list(idle)) & (ops != OP_CACHE_FLUSH)
    is_over &= records["source"] < cpu_count  # requests
    is_over &= busy["done_bytes"] == 0
    return np.asarray(is_over, np.bool_)


def _records(busy: NDArray[np.void]) -> NDArray[np.void]:
    """As far as they are known."""
    records = np.zeros(len(busy), RECORD)
    for name in set(RECORD.names or ()) - {"latency_ns", "queue_ns", "error"}:
        records[name] = busy[name]
    is_issued = busy["issue_ns"] != 0
    records["queue_ns"] = np.where(is_issued, busy["issue_ns"] - busy["start_ns"], NO_ISSUE)
    return records
