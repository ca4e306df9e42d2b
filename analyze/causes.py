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
# What an I/O in a call of a layer is caused by, the nearest layer first.
_CALLS = {
    "uring": "'uring'",
    "syscall": """CASE syscall.op WHEN 'io_submit' THEN 'aio'
        WHEN 'io_uring_enter' THEN 'uring' ELSE 'syscall' END""",
}
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
    joined = {layer: cause for layer, cause in _CALLS.items() if layer in layers}
    causes = " ".join(f"WHEN {_is_in(layer)} THEN {cause}" for layer, cause in joined.items())
    calls = " ".join(f"WHEN {_is_in(layer)} THEN {layer}.op" for layer in joined)
    return f"""
        SELECT io.*,
            CASE {causes} {threads} WHEN io.tid IS NOT NULL THEN {other} END AS cause,
            CASE {calls} WHEN true THEN '' END AS call
        FROM {table} AS io {" ".join(map(_join, joined))}
    """


def _is_in(layer: str) -> str:
    """Whether the I/O was submitted before the call that it is joined with ended."""
    has_ended = f"epoch_ns(io.time) > {layer}.ended"
    return f"{layer}.tid IS NOT NULL AND ({has_ended}) IS NOT TRUE"


def _join(layer: str) -> str:
    """With the last call of the layer that the same thread began before."""
    return f"""
        ASOF LEFT JOIN (
            SELECT coalesce(capture, '') AS capture, tid, time AS began,
                epoch_ns(time) + latency_ns AS ended, op FROM calls WHERE layer = '{layer}'
        ) AS {layer}
        ON io.tid = {layer}.tid AND coalesce(io.capture, '') = {layer}.capture
            AND io.time >= {layer}.began
    """


def _lost_calls(file: CaptureFile) -> int:
    counts = file.metadata.counts
    found = counts.by_layer.get("syscall") if counts else None
    return sum(found.lost.values()) if found else 0
