# SPDX-License-Identifier: GPL-2.0-only
"""Takes slow calls apart: which I/Os of disks were in flight during each, and where it waited."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyze.causes import IS_JOURNAL, IS_WRITEBACK
from analyze.errors import IorecError
from analyze.groupings import CALLED_BY
from analyze.metadata import Metadata
from analyze.opened import OpenedRows
from analyze.row_query import PROCESS_NAME, moment, quoted
from analyze.schema import BLOCK_LAYERS, FLUSH_OPS
from analyze.typed_json import EpochNs

_MOST_CALLS = 1000
_MOST_STEPS = 20_000  # of a call, which fit into memory
# An I/O that was submitted longer ago, and is still in flight, is not looked for.
_LONGEST_NS = 60_000_000_000

# SQL for the calls that are explained: those for files, whose names begin so, not for pipes.
_IS_EXPLAINED = (
    f"layer NOT IN {(*BLOCK_LAYERS, 'wait')} AND (file[1] BETWEEN '/' AND '9' OR op IN {FLUSH_OPS})"
)

# How an I/O belongs to a call, the nearest first; a moment with several belongs to the first.
RELATIONS = ("own", "journal", "writeback", "cache flush")
# What a thread in a call did that was not blocked.
FOR_A_CPU, ON_A_CPU = "waited for a CPU", "ran on a CPU"
RAN_OR_LOST = "ran on a CPU, or in waits that are lost"


@dataclass(frozen=True)
class Step:
    """An I/O of a disk during a call; `relation` is one of RELATIONS.

    `own`: submitted by the thread, in the call; of io_uring, before the thread's next operation.
    `journal`: of a journal, if the call waits for that. `writeback`: of the call's file, by the
    kernel. `cache flush`: of the device.
    """

    relation: str
    time: EpochNs
    op: str
    device: str | None
    offset: int | None
    bytes: int
    latency_ns: int | None
    errno: int | None
    process: str | None
    pid: int | None


@dataclass(frozen=True)
class Part:
    """The I/Os of a relation: how many, and in which part of the call any was in flight.

    What an earlier part has is in no later one. `ios` and `bytes` are None for what no I/O
    explains: the processor, locks, memory, or waiting for a thread of the kernel.
    """

    relation: str
    ios: int | None
    bytes: int | None
    time_ns: int
    share: float | None


@dataclass(frozen=True)
class Wait:
    """How often and how long the thread was blocked in a function of the kernel until it was woken.

    `place` has the function and those that called it (column `wait` of a capture; None: unknown),
    or is FOR_A_CPU, ON_A_CPU or, if the capture lacks some waits, RAN_OR_LOST; of the last two
    `times` is None.
    """

    place: str | None
    times: int | None
    time_ns: int
    share: float | None


@dataclass(frozen=True)
class WaitSpan:
    """One time in which the thread ran on no CPU; after `blocked_ns` of it, it waited for one."""

    place: str | None  # as that of Wait
    time: EpochNs
    blocked_ns: int
    length_ns: int


@dataclass(frozen=True)
class ExplainedCall:
    """A call or an operation of io_uring, and where its time went; None: it has not ended.

    `steps` are by time; a call that has not ended is looked at until recording stopped. `waits`
    share out its time, too, the longest first; None if they were not recorded. `spans`
    are its waits, one by one.
    """

    layer: str
    time: EpochNs
    op: str
    process: str | None
    pid: int | None
    tid: int | None
    file: str | None
    offset: int | None
    bytes: int
    result: int | None
    errno: int | None
    latency_ns: int | None
    length_ns: int
    parts: tuple[Part, ...]
    steps: tuple[Step, ...]
    waits: tuple[Wait, ...] | None
    spans: tuple[WaitSpan, ...]


@dataclass(frozen=True)
class WaitOfCalls(Wait):
    """The same of all calls of a name; the share is of the time of all calls."""

    op: str


@dataclass(frozen=True)
class AllCalls:
    """All calls that have ended, and where their time went, the most first."""

    calls: int
    time_ns: int
    waits: tuple[WaitOfCalls, ...]


@dataclass(frozen=True)
class Explanation:
    """All calls, if their waits were recorded, and some of them, the longest first."""

    all: AllCalls | None
    calls: tuple[ExplainedCall, ...]


def explain_calls(capture: OpenedRows, count: int) -> tuple[ExplainedCall, ...]:
    """The `count` calls for files that took longest, the longest first.

    The capture is opened with the layer of the calls; raises IorecError if neither disks nor waits
    were recorded.
    """
    if count > _MOST_CALLS:
        raise IorecError(f"cannot explain {count:,} calls", f"ask for {_MOST_CALLS:,} at most", 2)
    recorded = {layer for file in capture.files for layer in file.metadata.layers}
    if not recorded & {*BLOCK_LAYERS, "wait"}:
        raise IorecError(
            "the capture has neither I/O of disks nor waits, which could explain calls",
            "record them, too: iorec record --layer syscall,wait,request",
        )
    calls = capture.records(
        f"SELECT layer, epoch_ns(time) AS time_ns, op, {PROCESS_NAME} AS process, pid, tid, file,"
        ' "offset", bytes, result, errno, latency_ns, capture AS in_file FROM io'
        f" WHERE {_IS_EXPLAINED} ORDER BY coalesce(latency_ns, {2**62}) DESC, time LIMIT {count}"
    )
    return tuple(_explain(capture, **call) for call in calls)


def explain_all(capture: OpenedRows) -> AllCalls | None:
    """Where the time of all system calls for files went that have ended, if waits were recorded.

    The capture is opened with the layer syscall.
    """
    if not all("wait" in file.metadata.layers for file in capture.files):
        return None
    condition = f"{_IS_EXPLAINED} AND latency_ns IS NOT NULL"
    totals = capture.records(
        "SELECT op, count(*) AS calls, sum(latency_ns)::BIGINT AS time_ns"
        f" FROM io WHERE {condition} GROUP BY op"
    )
    places = capture.records(
        f"""
        WITH spans AS (
            SELECT io.op, {_span("io.time", "io.latency_ns")}
            FROM calls ASOF JOIN (FROM io WHERE {condition}) AS io
            ON calls.tid = io.tid AND calls.capture IS NOT DISTINCT FROM io.capture
                AND calls.time >= io.time
            WHERE calls.layer = 'wait' AND epoch_ns(calls.time) < epoch_ns(io.time) + io.latency_ns
        )
        SELECT op, place, count(*) AS times, sum(blocked_ns)::BIGINT AS time_ns
        FROM spans WHERE blocked_ns > 0 GROUP BY ALL
        UNION ALL
        SELECT op, '{FOR_A_CPU}', count(*), sum(length_ns - blocked_ns)::BIGINT
        FROM spans WHERE length_ns > blocked_ns GROUP BY ALL
        """
    )
    spent = Counter[str]()
    for place in places:
        spent[place["op"]] += place["time_ns"]
    rest = ON_A_CPU if _has_all_waits(capture, None) else RAN_OR_LOST
    for op, time_ns in ((total["op"], total["time_ns"]) for total in totals):
        ran_ns = max(time_ns - spent[op], 0)
        places.append({"op": op, "place": rest, "times": None, "time_ns": ran_ns})
    whole_ns = sum(total["time_ns"] for total in totals)
    waits = [WaitOfCalls(**place, share=_share(place["time_ns"], whole_ns)) for place in places]
    waits.sort(key=lambda wait: -wait.time_ns)
    return AllCalls(sum(total["calls"] for total in totals), whole_ns, tuple(waits))


def shorten_place(place: str, room: int) -> str:
    """Where a thread waits: the function, and as many of its callers as there is room for."""
    while len(place) > room and CALLED_BY in place:
        place = place.rpartition(CALLED_BY)[0]
    return place


def _explain(
    capture: OpenedRows, time_ns: int, latency_ns: int | None, **call: Any
) -> ExplainedCall:
    stop_ns = capture.recorded_until_ns(time_ns)
    length_ns = max(stop_ns - time_ns, 0) if latency_ns is None else latency_ns
    file = call.pop("in_file")
    steps = _load_steps(capture, time_ns, time_ns + length_ns, file, call)
    waits: tuple[Wait, ...] | None = None
    spans: tuple[WaitSpan, ...] = ()
    if call["layer"] == "syscall" and "wait" in _recorded(capture, file):
        spans = _load_spans(capture, time_ns, length_ns, file, call["tid"])
        rest = ON_A_CPU if _has_all_waits(capture, file) else RAN_OR_LOST
        waits = _sum_waits(spans, length_ns, rest)
    return ExplainedCall(
        time=EpochNs(time_ns),
        latency_ns=latency_ns,
        length_ns=length_ns,
        parts=_parts(steps, time_ns, length_ns),
        steps=steps,
        waits=waits,
        spans=spans,
        **call,
    )


def _load_steps(
    capture: OpenedRows, begin_ns: int, end_ns: int, file: str | None, call: dict[str, Any]
) -> tuple[Step, ...]:
    """All I/Os that were in flight in the call and have to do with it."""
    own = f"tid = {call['tid'] or 0} AND time >= {moment(begin_ns)}"
    if call["layer"] == "uring":
        own += f" AND time < {moment(_next_entry_ns(capture, begin_ns, end_ns, file, call['tid']))}"
    is_file = "false" if call["file"] is None else f"file = {quoted(call['file'])}"
    has_sync = call["op"] in FLUSH_OPS
    rows = capture.records(
        f"""
        WITH near AS (
            SELECT *, CASE WHEN {own} THEN 'own'
                WHEN {has_sync} AND ({IS_JOURNAL}) THEN 'journal'
                WHEN {has_sync} AND op = 'cache_flush' THEN 'cache flush'
                WHEN {is_file} AND ({IS_WRITEBACK}) THEN 'writeback' END AS relation
            FROM disks
            WHERE {_of_capture(file)} AND time >= {moment(begin_ns - _LONGEST_NS)}
                AND time < {moment(end_ns)}
                AND (latency_ns IS NULL OR epoch_ns(time) + latency_ns > {begin_ns})
        ), devices AS (
            SELECT DISTINCT device FROM near WHERE relation IN ('own', 'writeback')
        )
        SELECT relation, epoch_ns(time) AS time, op, device, "offset", bytes, latency_ns, errno,
            {PROCESS_NAME} AS process, pid
        FROM near WHERE relation IN ('own', 'writeback') OR relation IS NOT NULL
            AND (device IN (FROM devices) OR NOT EXISTS (FROM devices))
        ORDER BY near.time LIMIT {_MOST_STEPS}
        """
    )
    return tuple(Step(**row | {"time": EpochNs(row["time"])}) for row in rows)


def _next_entry_ns(
    capture: OpenedRows, begin_ns: int, end_ns: int, file: str | None, tid: int | None
) -> int:
    """When the thread submitted its next operation to io_uring: I/Os from then on are for that."""
    (row,) = capture.records(
        f"""
        SELECT min(epoch_ns(time)) AS next_ns FROM calls
        WHERE layer = 'uring' AND {_of_capture(file)} AND tid = {tid or 0}
            AND time > {moment(begin_ns)} AND time < {moment(end_ns)}
        """
    )
    return end_ns if row["next_ns"] is None else int(row["next_ns"])


def _parts(steps: Sequence[Step], begin_ns: int, length_ns: int) -> tuple[Part, ...]:
    """Shares out the time of the call: a moment belongs to the nearest I/O in flight then."""
    covered: list[tuple[int, int]] = []
    parts, spent_ns = [], 0
    for relation in RELATIONS:
        found = [step for step in steps if step.relation == relation]
        for step in found:
            start = max(step.time - begin_ns, 0)
            stop = length_ns if step.latency_ns is None else step.time - begin_ns + step.latency_ns
            covered.append((start, min(stop, length_ns)))
        time_ns = _union_ns(covered) - spent_ns
        spent_ns += time_ns
        if found:
            size = sum(step.bytes for step in found)
            parts.append(Part(relation, len(found), size, time_ns, _share(time_ns, length_ns)))
    rest_ns = length_ns - spent_ns
    return (*parts, Part("none of these", None, None, rest_ns, _share(rest_ns, length_ns)))


def _metadata(capture: OpenedRows, file: str | None) -> list[Metadata]:
    """Of the file that a call is in."""
    files = capture.files
    return [one.metadata for one in files if file in (None, str(one.path.resolve()))]


def _recorded(capture: OpenedRows, file: str | None) -> set[str]:
    return {layer for found in _metadata(capture, file) for layer in found.layers}


def _has_all_waits(capture: OpenedRows, file: str | None) -> bool:
    """Whether none of them is lost, as far as is known."""
    accounts = [found.counts for found in _metadata(capture, file)]
    return all(
        counts is not None and not any(counts.by_layer.get("wait", counts).lost.values())
        for counts in accounts
    )


def _load_spans(
    capture: OpenedRows, begin_ns: int, length_ns: int, file: str | None, tid: int | None
) -> tuple[WaitSpan, ...]:
    rows = capture.records(
        f"""
        SELECT epoch_ns(time) AS time, {_span(moment(begin_ns), str(length_ns))}
        FROM calls WHERE layer = 'wait' AND {_of_capture(file)} AND tid = {tid or 0}
            AND time >= {moment(begin_ns)} AND time < {moment(begin_ns + length_ns)}
        ORDER BY calls.time LIMIT {_MOST_STEPS}
        """
    )
    return tuple(WaitSpan(**row | {"time": EpochNs(row["time"])}) for row in rows)


def _span(begin: str, lasts_ns: str) -> str:
    """SQL for a wait as WaitSpan has it, no longer than what is left of the call it is in.

    least() leaves out what is null: one that has not ended lasts as long as the call, and one that
    was not woken is blocked for all of it.
    """
    length_ns = f"least(calls.latency_ns, epoch_ns({begin}) + {lasts_ns} - epoch_ns(calls.time))"
    return (
        f"calls.wait AS place, {length_ns} AS length_ns,"
        f" greatest(least(calls.queue_ns, {length_ns}), 0) AS blocked_ns"
    )


def _sum_waits(spans: Sequence[WaitSpan], length_ns: int, rest: str) -> tuple[Wait, ...]:
    """Shares out the time of the call by what its thread did; the `rest` it was in no wait.

    The clock of the programs may go back a little (ktime_get_mono_fast_ns), so that a call which
    did nothing but wait is shorter than its waits.
    """
    found: dict[str | None, list[int]] = defaultdict(list)
    for span in spans:
        found[span.place].append(span.blocked_ns)
        found[FOR_A_CPU].append(span.length_ns - span.blocked_ns)
    sums = [
        (place, len([time for time in times if time]), sum(times)) for place, times in found.items()
    ]
    ran_ns = max(length_ns - sum(time_ns for _, _, time_ns in sums), 0)
    waits = [Wait(*one, _share(one[2], length_ns)) for one in sums if one[1]]
    waits.append(Wait(rest, None, ran_ns, _share(ran_ns, length_ns)))
    return tuple(sorted(waits, key=lambda wait: -wait.time_ns))


def _of_capture(file: str | None) -> str:
    return "true" if file is None else f"capture = {quoted(file)}"


def _union_ns(spans: Sequence[tuple[int, int]]) -> int:
    """How much time the spans cover together."""
    total, reached = 0, 0
    for start, stop in sorted(spans):
        total += max(stop - max(start, reached), 0)
        reached = max(reached, stop)
    return total


def _share(part_ns: int, whole_ns: int) -> float | None:
    return part_ns / whole_ns if whole_ns else None
