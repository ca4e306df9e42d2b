"""The layouts of bpf/records.h as numpy dtypes."""

import numpy as np

NO_ISSUE = 2**64 - 1
NO_IDENTITY = 0

IS_AWAKE = 2**64 - 1

CONTROL = np.dtype(
    [
        ("is_recording", "u8"),
        ("wake_bytes", "u8"),
        ("wakes_for_identities", "u8"),
        ("has_identities", "u8"),
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
        ("bios_or_above", "u4"),
        ("lane", "u2"),
        ("error", "u1"),
        ("partno", "u1"),
    ]
)

SLOT = np.dtype(
    [
        ("key", "u8"),
        ("start_ns", "u8"),
        ("issue_ns", "u8"),
        ("sector", "u8"),
        ("bytes", "u4"),
        ("done_bytes_or_parts", "u4"),
        ("dev", "u4"),
        ("cmd_flags", "u4"),
        ("identity", "u4"),
        ("bios_or_above", "u4"),
        ("lane", "u2"),
        ("error", "u1"),
        ("partno", "u1"),
        ("is_filtered", "u1"),
        ("is_part", "u1"),
        ("padding", "V2"),
    ]
)

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
    ]
)

PROGRAM_COUNTERS = np.dtype(
    [
        ("scratch", "u8"),
        ("runs", "u8"),
        ("table_full", "u8"),
        ("stale", "u8"),
        ("identities", "u8"),
        ("events", "u8"),
        ("padding", "u8", 2),
    ]
)

COUNTERS = np.dtype(
    [
        (program, PROGRAM_COUNTERS)
        for program in ("start", "issue", "merge", "requeue", "split", "remap", "bio_queue")
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
        ("done_bios", "u8"),
        ("padding", "u8", 6),
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
        ("padding", "u8", 4),
    ]
)

GAP = np.dtype([("first_ns", "u8"), ("last_ns", "u8"), ("lost", "u8")])
