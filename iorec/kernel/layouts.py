# SPDX-License-Identifier: GPL-2.0-only
"""The layouts of bpf/records.h as numpy dtypes."""

import numpy as np
from numpy.typing import NDArray

from iorec.kernel.plan import SLOTS_PER_BUCKET

NO_ISSUE = 2**64 - 1
NO_IDENTITY, LOST_IDENTITY = 0, 2**32 - 1
IS_AWAKE = 2**64 - 1
NEVER_QUEUED = 2**32 - 1

CONTROL = np.dtype(
    [
        ("is_recording", "u8"),
        ("wake_bytes", "u8"),
        ("wakes_for_identities", "u8"),
        ("has_identities", "u8"),
        ("epoch", "u8"),
        ("scheduler_start", "u8"),
        ("scheduler_bytes", "u8"),
    ]
)

RECORD = np.dtype(
    [
        ("start_ns", "u8"),
        ("latency_ns", "u8"),
        ("queue_ns", "u8"),
        ("sector", "u8"),
        ("bytes", "u4"),
        ("dev", "u4"),
        ("cmd_flags", "u4"),
        ("identity", "u4"),
        ("bio_count", "u4"),
        ("source", "u2"),
        ("error", "u1"),
        ("partno", "u1"),
    ]
)


def results_of(records: NDArray[np.void], is_uring: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each of these records (dtype RECORD) of system calls, or of io_uring, has returned."""
    whole = records["queue_ns"].view(np.int64)
    lower = records["queue_ns"].astype(np.uint32).view(np.int32)
    return np.where(is_uring, lower, whole)


def moved_bytes(
    records: NDArray[np.void], is_call: NDArray[np.bool_], is_uring: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """How much each record has moved; of a block layer all that it is for.

    What was returned beyond what was asked for is no size: a file's number, an address.
    """
    sizes = records["bytes"].astype(np.int64)
    results = results_of(records, is_uring)
    is_size = (results >= 0) & (results <= sizes)
    return np.where(is_call, np.where(is_size, results, 0), sizes)


SLOT = np.dtype(
    [
        ("start_ns", "u8"),
        ("whole_key", "u8"),
        ("issue_ns", "u8"),
        ("sector", "u8"),
        ("bytes", "u4"),
        ("dev", "u4"),
        ("cmd_flags", "u4"),
        ("identity", "u4"),
        ("done_bytes", "u4"),
        ("bio_count", "u4"),
        ("source", "u2"),
        ("error", "u1"),
        ("partno", "u1"),
        ("is_filtered", "u1"),
        ("is_part", "u1"),
        ("has_ended", "u1"),
        ("padding", "u1"),
    ]
)

BUCKET = np.dtype([("keys", "u8", SLOTS_PER_BUCKET), ("slots", SLOT, SLOTS_PER_BUCKET)])

IDENTITY = np.dtype(
    [
        ("cgroup", "u8"),
        ("charged_cgroup", "u8"),
        ("inode", "u8"),
        ("inode_dev", "u4"),
        ("generation", "u4"),
        ("pid", "u4"),
        ("tid", "u4"),
        ("comm", "V16"),
        ("record_bytes", "u8"),
        ("process_start_ns", "u8"),
        ("process", "V16"),
        ("ppid", "u4"),
        ("uid", "u4"),
        ("exec_id", "u4"),
        ("unused", "u4"),
        ("dirtied_by", "u8"),
    ]
)

ANNOUNCEMENT = np.dtype(
    [
        ("identity", IDENTITY),
        ("number", "u4"),
        ("source", "u2"),
        ("padding", "u2"),
    ]
)

LANE = np.dtype(
    [
        (name, "u8")
        for name in (
            "scratch",
            "turns",
            "runs",
            "recorded",
            "ring_full",
            "filtered",
            "unmatched",
            "continuations",
            "refused",
            "table_full",
            "stale",
            "identities",
            "events",
            "gaps",
            "done_bios",
            "left_out",
        )
    ]
)

TALLY = np.dtype(
    [
        ("key", "u8"),
        ("filtered", "u8"),
        ("filtered_bytes", "u8"),
        ("ring_full", "u8"),
        ("ring_full_bytes", "u8"),
        ("unmatched", "u8"),
        ("unmatched_bytes", "u8"),
        ("stale", "u8"),
        ("stale_bytes", "u8"),
        ("merges", "u8"),
        ("splits", "u8"),
        ("requeues", "u8"),
        ("refused", "u8"),
        ("padding", "u8", 3),
    ]
)

GAP = np.dtype([("first_ns", "u8"), ("last_ns", "u8"), ("lost", "u8")])
