# SPDX-License-Identifier: GPL-2.0-only
"""Decides in SQL what each row of a capture becomes on its target, or why it is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyze import replay_actions as actions
from analyze.opened import OpenedRows
from analyze.replayed import WRITES_LEFT_OUT
from analyze.row_query import quoted

# Of a file that is yet to be made: beyond what a file can hold.
UNBOUNDED_BYTES = 1 << 62
_COARSE_BLOCK = 4096
_LONGEST_NS = 10**15  # what is longer, or negative, is no latency

# What the view has for each row that is replayed; `time` is for stream_batches.
COLUMNS = ("time_ns", "target", "action", "place", "size", "tid", "latency_ns")


@dataclass(frozen=True)
class Place:
    """What the rules have to know of a target; sizes in bytes, None where there is no limit.

    Where the largest discard or write_zeroes is 0, the target has none.
    """

    source: str
    size_bytes: int | None
    source_size_bytes: int | None
    logical_block_size: int
    largest_bytes: int | None  # one request of the device
    is_written: bool
    largest_discard_bytes: int | None = None
    largest_zeroes_bytes: int | None = None


@dataclass(frozen=True)
class Rules:
    """How rows become I/Os; `has_aio` is for libaio, which knows reads, writes and flushes."""

    places: tuple[Place, ...]
    writes: str
    fit: str
    has_aio: bool


def create_replayed(capture: OpenedRows, rules: Rules) -> None:
    """Creates the views `judged`, all rows, and `replayed`, those without a reason to leave out.

    Columns are those of COLUMNS, `time`, `op`, `reason`, and as facts `is_beyond` the target's end,
    `is_unaligned` to its blocks, `is_large` for one request (of `one_request` bytes),
    `is_larger_than_target`, `is_moved` by fitting.
    """
    capture.connection.execute(_places_table(rules.places))
    capture.connection.execute(
        f"""
        CREATE OR REPLACE VIEW judged AS
        WITH known AS (
            SELECT io.*, {_unless_flush('coalesce("offset", 0)')} AS first,
                {_unless_flush("bytes")} AS amount, p.*,
                {_reason(rules)} AS reason, {_action(rules)} AS action
            FROM io LEFT JOIN replay_places p ON io.device = p.source
        ),
        facts AS (
            SELECT *,
                first + amount > target_bytes AS is_beyond,
                first % block <> 0 OR amount % block <> 0 AS is_unaligned,
                amount > one_request AS is_large, whole_size > target_bytes AS is_larger_than_target
            FROM (SELECT *, (amount + block - 1) // block * block AS whole_size,
                CASE WHEN op = 'discard' THEN largest_discard
                    WHEN op = 'write_zeroes' THEN largest_zeroes ELSE largest END AS one_request
                FROM known)
        ),
        fitted AS (
            SELECT *, CASE WHEN reason IS NOT NULL OR action = {actions.FLUSH} THEN 0 ELSE
                least(({_fitted(rules.fit)}) // grain * grain,
                    greatest((target_bytes - whole_size) // block * block, 0)) END AS where_to
            FROM (SELECT *, CASE WHEN first % {_COARSE_BLOCK} = 0
                THEN greatest(block, {_COARSE_BLOCK}) ELSE block END AS grain FROM facts)
        )
        SELECT time, epoch_ns(time) AS time_ns, op, target, action, where_to::BIGINT AS place,
            (CASE WHEN action = {actions.FLUSH} THEN 0 ELSE whole_size END)::BIGINT AS size,
            coalesce(tid, -1) AS tid, reason,
            CASE WHEN latency_ns BETWEEN 0 AND {_LONGEST_NS} THEN latency_ns END AS latency_ns,
            errno, first + amount AS at_end, block, one_request, is_beyond, is_unaligned, is_large,
            is_larger_than_target,
            action <> {actions.FLUSH} AND (where_to <> first OR whole_size <> amount) AS is_moved
        FROM fitted
        """
    )
    capture.connection.execute(
        "CREATE OR REPLACE VIEW replayed AS SELECT * FROM judged WHERE reason IS NULL"
    )


def _places_table(places: Sequence[Place]) -> str:
    rows = ", ".join(
        f"({quoted(place.source)}, {number},"
        f" {_limit(place.size_bytes)},"
        f" {place.source_size_bytes or 0}::HUGEINT, {place.logical_block_size}::HUGEINT,"
        f" {place.largest_bytes or actions.LARGEST_IO_BYTES}::HUGEINT,"
        f" {place.is_written}, {_limit(place.largest_discard_bytes)},"
        f" {_limit(place.largest_zeroes_bytes)})"
        for number, place in enumerate(places)
    )
    columns = (
        "source, target, target_bytes, source_bytes, block, largest, is_written,"
        " largest_discard, largest_zeroes"
    )
    return (
        "CREATE OR REPLACE TABLE replay_places AS"
        f" SELECT * FROM (VALUES {rows}) AS places({columns})"
    )


def _limit(size_bytes: int | None) -> str:
    return f"{UNBOUNDED_BYTES if size_bytes is None else size_bytes}::HUGEINT"


def _reason(rules: Rules) -> str:
    """SQL for why a row is left out, null if it is not."""
    sources = ", ".join(quoted(place.source) for place in rules.places)
    skip = (
        f"WHEN op = 'write' AND NOT is_written THEN '{WRITES_LEFT_OUT}'"
        if rules.writes == "skip"
        else ""
    )
    aio = (
        "WHEN op IN ('discard', 'write_zeroes') THEN op || ': libaio has none'"
        if rules.has_aio
        else ""
    )
    return f"""CASE
        WHEN time IS NULL OR op IS NULL OR bytes IS NULL
            THEN 'without a time, an operation or a size'
        WHEN op = 'cache_flush' THEN 'cache flushes, which the target does by itself'
        WHEN p.source IS NULL THEN coalesce(device, 'an unknown device') || ': not mapped'
        WHEN above IN ({sources}) THEN 'sent down by ' || above || ', which is mapped'
        WHEN op NOT IN ('read', 'write', 'flush', 'discard', 'write_zeroes')
            THEN op || ': cannot be replayed'
        WHEN op IN ('read', 'write') AND bytes = 0 THEN 'moves no data'
        WHEN op IN ('discard', 'write_zeroes') AND bytes = 0 THEN op || ' of nothing'
        WHEN op <> 'flush' AND ("offset" IS NULL OR "offset" < 0 OR bytes < 0)
            THEN 'without a valid place'
        WHEN op IN ('read', 'write') AND bytes > {actions.LARGEST_IO_BYTES}
            THEN 'larger than {actions.LARGEST_IO_BYTES >> 20} MiB'
        {skip}
        WHEN op NOT IN ('read', 'write') AND NOT is_written
            THEN op || ': the target is only read'
        {aio}
        WHEN CASE op WHEN 'discard' THEN largest_discard WHEN 'write_zeroes' THEN largest_zeroes END
            = 0 THEN op || ': the target cannot'
        END"""


def _action(rules: Rules) -> str:
    """SQL for the number of the action."""
    preflush = 0 if rules.has_aio else actions.PREFLUSH
    return f"""CASE
        WHEN op = 'read' OR (op = 'write' AND NOT is_written) THEN {actions.READ}
        WHEN op = 'write' THEN {actions.WRITE}
            + CASE WHEN {_has_flag("fua")} THEN {actions.FUA} ELSE 0 END
            + CASE WHEN {_has_flag("preflush")} THEN {preflush} ELSE 0 END
        WHEN op = 'flush' THEN {actions.FLUSH}
        WHEN op = 'discard' THEN {actions.DISCARD}
        WHEN {_has_flag("nounmap")} THEN {actions.ZERO_NO_UNMAP}
        ELSE {actions.ZERO} END"""


def _unless_flush(number: str) -> str:
    """SQL for a number; a flush has neither a place nor a size, whatever its row says."""
    return f"CASE WHEN op = 'flush' THEN 0 ELSE {number} END::HUGEINT"


def _has_flag(name: str) -> str:
    return f"contains('|' || flags || '|', '|{name}|')"


def _fitted(fit: str) -> str:
    """SQL for the place before it is aligned and kept from crossing the end.

    Nothing is scaled to a new file, which gets the size of the source.
    """
    if fit == "wrap":
        return "first % greatest(target_bytes // grain * grain, 1)"
    if fit == "scale":
        return (
            f"CASE WHEN source_bytes = 0 OR target_bytes = {UNBOUNDED_BYTES} THEN first"
            " ELSE first * target_bytes // source_bytes END"
        )
    return "first"
