# SPDX-License-Identifier: GPL-2.0-only
"""Makes the plan of a replay: what is done, what is left out and why, and whether it can be."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from analyze import replay_actions as actions
from analyze.capture import Capture
from analyze.errors import IorecError
from analyze.metadata import Device
from analyze.replay_rows import UNBOUNDED_BYTES, Place, Rules
from analyze.sources import metadata_digest
from analyze.units import format_bytes, format_counted
from analyze.verdict import format_completeness
from iorec.replay.planned import Plan, PlannedTarget

_FIT_HINT = "take another target, or have them fit with --fit wrap or --fit scale"


def check_source(capture: Capture, sources: Sequence[str], *, accepts_losses: bool) -> None:
    """Raises for captures that cannot be replayed: of several hosts, without an account, lossy."""
    names = ", ".join(str(file.path) for file in capture.files)
    if capture.has_several_hosts:
        raise IorecError(
            f"{names} are of several hosts, or boots of one", "replay the capture of one"
        )
    completeness = capture.completeness()
    if completeness.is_complete is not True and not accepts_losses:
        raise IorecError(
            f"not all I/Os are in {names}: {format_completeness(completeness)}",
            "record again, or replay what there is with --accept-losses",
        )
    known = [device.name for file in capture.files for device in file.metadata.devices]
    in_rows = capture.sql("SELECT DISTINCT device FROM io WHERE device IS NOT NULL").fetchall()
    recorded = sorted(name for (name,) in in_rows)
    for source in sources:
        if source not in recorded:
            was = "has no I/O" if source in known else "is no device"
            raise IorecError(
                f"{source} {was} in {names}",
                f"map one of: {', '.join(recorded) or 'it holds no I/O of a device'}",
                exit_code=2,
            )


def device_of(capture: Capture, name: str) -> Device | None:
    """What the capture says of a device."""
    devices = (device for file in capture.files for device in file.metadata.devices)
    return next((device for device in devices if device.name == name), None)


def make_plan(capture: Capture, rules: Rules, threads: tuple[int, int] = (0, 0)) -> Plan:
    """Adds up the view `judged`; raises IorecError for what is not to be fitted."""
    facts = capture.records(_FACTS)
    kept = [row for row in facts if row["reason"] is None]
    if not kept:
        raise IorecError("no I/O is left to replay", _nothing_hint(facts))
    _check_fit(kept, rules)
    left_out = Counter[str]()
    for row in facts:
        if row["reason"] is not None:
            left_out[row["reason"]] += row["ios"]
    return Plan(
        source_digest=metadata_digest(capture.files),
        targets=tuple(
            _planned(capture, place.source, [row for row in kept if row["target"] == number])
            for number, place in enumerate(rules.places)
        ),
        first_ns=min(row["first_ns"] for row in kept),
        last_ns=max(row["last_ns"] for row in kept),
        left_out=dict(left_out.most_common()),
        moved=sum(row["moved"] for row in kept),
        split=sum(row["large"] for row in kept),
        waiting_threads=threads[0],
        other_threads=threads[1],
        begin_s=capture.selection.begin_s,
        end_s=capture.selection.end_s,
    )


_FACTS = """
    SELECT reason, target, CASE WHEN reason IS NULL THEN action END AS action, count(*) AS ios,
        sum(size)::BIGINT AS bytes, max(size) AS largest, min(place) AS first_byte,
        max(place + size) AS end_byte, min(time_ns) AS first_ns, max(time_ns) AS last_ns,
        count(*) FILTER (is_beyond) AS beyond, count(*) FILTER (is_unaligned) AS unaligned,
        count(*) FILTER (is_large) AS large, min(one_request) FILTER (is_large)::BIGINT AS limit_to,
        count(*) FILTER (is_larger_than_target) AS too_large, count(*) FILTER (is_moved) AS moved,
        least(max(at_end), 9223372036854775807)::BIGINT AS needed, max(block)::BIGINT AS block
    FROM judged GROUP BY ALL ORDER BY ALL
"""


def _planned(capture: Capture, source: str, rows: list[dict[str, Any]]) -> PlannedTarget:
    device = device_of(capture, source)
    ios = Counter[str]()
    for row in rows:
        ios[actions.NAMES[row["action"] & actions.KIND_MASK]] += row["ios"]
    by_kind = {
        kind: [row for row in rows if row["action"] & actions.KIND_MASK == kind]
        for kind in actions.NAMES
    }
    moving = by_kind[actions.READ] + by_kind[actions.WRITE]
    placed = [row for row in rows if row["action"] != actions.FLUSH]
    return PlannedTarget(
        source=source,
        source_size_bytes=device.size_bytes if device else None,
        source_scheduler=device.scheduler if device else None,
        source_nr_requests=device.nr_requests if device else None,
        source_block_size=device.logical_block_size if device else None,
        ios=dict(ios.most_common()),
        bytes=sum(row["bytes"] for row in moving),
        written_bytes=sum(row["bytes"] for row in by_kind[actions.WRITE]),
        first_byte=min((row["first_byte"] for row in placed), default=0),
        end_bytes=max((row["end_byte"] for row in placed), default=0),
        largest_read=max((row["largest"] for row in by_kind[actions.READ]), default=0),
        largest_write=max((row["largest"] for row in by_kind[actions.WRITE]), default=0),
        largest_bytes=max((row["largest"] for row in moving), default=0),
    )


def _check_fit(kept: list[dict[str, Any]], rules: Rules) -> None:
    for number, place in enumerate(rules.places):
        if rules.fit == "scale" and place.source_size_bytes is None:
            raise IorecError(
                f"the capture does not say how large {place.source} is: nothing can be scaled",
                "have I/Os fit with --fit wrap",
            )
        rows = [row for row in kept if row["target"] == number]
        fault = _unfitted(rows, place) if rules.fit == "refuse" else _unfittable(rows, place)
        if fault is not None:
            raise fault


def _unfittable(rows: list[dict[str, Any]], place: Place) -> IorecError | None:
    """What no fitting helps against."""
    too_large = sum(row["too_large"] for row in rows)
    if not too_large:
        return None
    return IorecError(
        f"{format_counted(too_large, 'I/O')} of {place.source} are larger than the whole target,"
        f" {format_bytes(place.size_bytes)}",
        "take a larger target, or leave them out with --where",
    )


def _unfitted(rows: list[dict[str, Any]], place: Place) -> IorecError | None:
    beyond, unaligned, large = (
        sum(row[key] for row in rows) for key in ("beyond", "unaligned", "large")
    )
    if beyond:
        return IorecError(
            f"{format_counted(beyond, 'I/O')} of {place.source} end beyond {_size_of(place)}: it"
            f" takes {format_bytes(max(row['needed'] for row in rows))}",
            _FIT_HINT,
        )
    if unaligned:
        return IorecError(
            f"{format_counted(unaligned, 'I/O')} of {place.source} are not in whole blocks of"
            f" the target, which are of {place.logical_block_size} bytes",
            _FIT_HINT,
        )
    if large:
        return IorecError(
            f"{format_counted(large, 'I/O')} of {place.source} are larger than one request of the"
            f" target, {format_bytes(min(row['limit_to'] for row in rows if row['large']))}, and"
            " would be split",
            "take another target, or have them split with --fit wrap or --fit scale",
        )
    return None


def _size_of(place: Place) -> str:
    if place.size_bytes is None:
        return f"what a file can hold, {format_bytes(UNBOUNDED_BYTES)}"
    return f"the target's {format_bytes(place.size_bytes)}"


def _nothing_hint(facts: list[dict[str, Any]]) -> str:
    reasons = [f"{row['reason']} ({row['ios']:,})" for row in facts[:3]]
    return f"left out: {'; '.join(reasons)}" if reasons else "widen -b, -e or --where"
