"""The layouts of bpf/records.h as numpy dtypes."""

import numpy as np

NO_ISSUE = 2**64 - 1
NO_IDENTITY = 0

_RECORDED_FIELDS = [
    ("sector", "u8"),
    ("bytes", "u4"),
    ("dev", "u4"),
    ("cmd_flags", "u4"),
    ("identity", "u4"),
    ("cpu", "u2"),
    ("error", "u2"),
    ("partno", "u1"),
]

RECORD = np.dtype(
    [
        ("start_ns", "u8"),
        ("latency_ns", "u8"),
        ("queue_ns", "u8"),
        *_RECORDED_FIELDS,
        ("padding", "V3"),
    ]
)

SLOT = np.dtype(
    [
        ("key", "u8"),
        ("start_ns", "u8"),
        ("issue_ns", "u8"),
        ("sector", "u8"),
        ("bytes", "u4"),
        ("done_bytes", "u4"),
        ("dev", "u4"),
        ("cmd_flags", "u4"),
        ("identity", "u4"),
        ("cpu", "u2"),
        ("error", "u2"),
        ("partno", "u1"),
        ("is_filtered", "u1"),
        ("padding", "V6"),
    ]
)

IDENTITY = np.dtype([("cgroup", "u8"), ("pid", "u4"), ("tid", "u4"), ("comm", "V16")])


def _section(*names: str) -> np.dtype[np.void]:
    return np.dtype([("scratch", "u8"), *((n, "u8") for n in names), ("pad", "u8", 7 - len(names))])


COUNTERS = np.dtype(
    [
        ("start", _section("runs", "table_full", "stale", "identities")),
        ("issue", _section("table_full", "stale")),
        ("merge", _section("merged")),
        ("requeue", _section("requeued")),
    ]
)

COMPLETE_COUNTERS = np.dtype(
    [
        ("is_running", "u8"),
        ("scratch", "u8"),
        ("runs", "u8"),
        ("recorded", "u8"),
        ("ring_full", "u8"),
        ("filtered", "u8"),
        ("unmatched", "u8"),
        ("continuations", "u8"),
        ("gaps", "u8"),
        ("padding", "u8", 7),
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
        ("padding", "u8", 7),
    ]
)

GAP = np.dtype([("first_ns", "u8"), ("last_ns", "u8"), ("lost", "u8")])
