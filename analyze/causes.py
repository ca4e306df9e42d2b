# SPDX-License-Identifier: GPL-2.0-only
"""Finds what caused an I/O of a disk: the call that its thread was in, or a thread of the kernel.

The calls of a thread follow one another, so an I/O belongs to the one in whose time the same thread
submitted it; both times are of one clock.
"""

from collections.abc import Sequence

from analyze.sources import CaptureFile

# SQL for I/Os of threads of the kernel.
IS_JOURNAL = "comm LIKE 'jbd2/%' OR comm LIKE 'xfsaild/%' OR comm LIKE 'btrfs-transac%'"
IS_WRITEBACK = "comm LIKE 'kworker/%' AND file IS NOT NULL AND above IS NULL"
_KERNEL_THREADS = {
    "journal": IS_JOURNAL,
    "writeback": IS_WRITEBACK,
    "uring": "comm LIKE 'iou-wrk-%'",
    "loop": "comm LIKE 'kworker/%' AND above LIKE 'loop%'",
}


def caused_query(files: Sequence[CaptureFile], table: str) -> str:
    """SQL for the rows of a table with CAUSE_COLUMNS, by those of the view `calls`.

    `cause` is `syscall`, `uring` or `aio`; `journal`, `writeback` or `loop`, told by the thread;
    `other` for a thread that was in none of the recorded calls; null for what no thread submitted
    and, if calls were lost or none were recorded, for what cannot be told.
    """
    layers = {layer for file in files for layer in file.metadata.layers}
    lost = sum(_lost_calls(file) for file in files)
    other = "'other'" if "syscall" in layers and not lost else "NULL"
    threads = " ".join(f"WHEN {is_one} THEN '{cause}'" for cause, is_one in _KERNEL_THREADS.items())
    is_in = "{0}.tid IS NOT NULL AND (epoch_ns(io.time) <= {0}.ended OR {0}.ended IS NULL)"
    in_entry, in_call = is_in.format("entries"), is_in.format("calls")
    return f"""
        SELECT io.*,
            CASE WHEN {in_entry} THEN 'uring'
                WHEN {in_call} THEN CASE calls.op WHEN 'io_submit' THEN 'aio'
                    WHEN 'io_uring_enter' THEN 'uring' ELSE 'syscall' END
                {threads} WHEN io.tid IS NOT NULL THEN {other} END AS cause,
            CASE WHEN {in_entry} THEN entries.op WHEN {in_call} THEN calls.op ELSE '' END AS call
        FROM {table} AS io
        ASOF LEFT JOIN ({_calls_of("uring")}) AS entries
            ON io.tid = entries.tid AND {_same_capture("entries")} AND io.time >= entries.began
        ASOF LEFT JOIN ({_calls_of("syscall")}) AS calls
            ON io.tid = calls.tid AND {_same_capture("calls")} AND io.time >= calls.began
    """


def _calls_of(layer: str) -> str:
    return (
        "SELECT coalesce(capture, '') AS capture, tid, time AS began,"
        f" epoch_ns(time) + latency_ns AS ended, op FROM calls WHERE layer = '{layer}'"
    )


def _same_capture(table: str) -> str:
    return f"coalesce(io.capture, '') = {table}.capture"


def _lost_calls(file: CaptureFile) -> int:
    counts = file.metadata.counts
    found = counts.by_layer.get("syscall") if counts else None
    return sum(found.lost.values()) if found else 0
