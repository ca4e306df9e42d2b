# SPDX-License-Identifier: GPL-2.0-only
"""Says whether a capture holds every I/O: the one account for everything that records or shows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyze.agreement import Agreement, compare_with_diskstats
from analyze.hosts import with_host_in_names
from analyze.ledgers import only_layer, shown_ledgers
from analyze.metadata import Counts, DeviceEvents, Gap, Metadata
from analyze.schema import LOSS_CAUSES
from analyze.scope import narrow_to_filter

if TYPE_CHECKING:
    from analyze.sources import CaptureFile

_EVENT_KINDS = ("merges", "splits", "requeues", "refused")


@dataclass(frozen=True)
class Completeness:
    """The ledgers of all captures, added up and checked, of the devices that were asked for.

    `is_complete` is None if a capture has no ledger: then nothing is known. Where no row was read,
    `byte_mismatch` is None, and so is `failed` if the recorder did not count them.
    """

    is_complete: bool | None
    recorded: int
    recorded_by_layer: dict[str, int]
    cache_flushes: int  # of the recorded ones, those that devices made for themselves
    lost: int
    lost_by_cause: dict[str, int]  # also when 0
    lost_by_layer: dict[str, int]  # at most; exactly, if all devices were asked for
    missed_by_device: dict[str, int]  # completions that were not seen, where it is known of what
    identity_lost: int  # rows whose submitter is unknown for lack of room
    failed: int | None
    in_flight: int
    filtered: int
    began_before: int
    left_out: dict[str, int]  # by reason: system calls and the like that cannot be recorded
    unaccounted: int  # completions that the ledger does not explain: 0 when it closes
    unwritten: int  # of a recovered capture: completions known when the last rows were written
    row_mismatch: int  # rows by which the files differ from their ledgers
    byte_mismatch: int | None  # bytes by which the rows shown differ from their ledgers
    is_recovered: bool  # the recording was cut off
    buffer_bytes: int | None  # the largest
    note_count: int  # kinds of what went wrong beside the recording of I/Os
    gaps: tuple[Gap, ...]  # when I/Os were lost, in time order
    events: tuple[DeviceEvents, ...]  # by device and op, where there were any
    devices: tuple[Agreement, ...]


@dataclass(frozen=True)
class _Account:
    """One recording's metadata, of the wanted devices, and how many rows it has, if known."""

    metadata: Metadata
    row_count: int | None


def make_completeness_of(metadata: Metadata, row_count: int | None = None) -> Completeness:
    """Checks the ledger of one recording, and that its rows are as many, if that is known."""
    return _check([_Account(narrow_to_filter(metadata), row_count)], None, None)


def make_completeness(
    files: Sequence["CaptureFile"], *, failed: int | None = None, byte_mismatch: int | None = None
) -> Completeness:
    """Adds up the ledgers of the captures and checks them.

    `failed` and `byte_mismatch` are what only the rows tell, of all of them.
    """
    has_several_hosts = len({file.host for file in files}) > 1
    accounts = []
    for file in files:
        metadata = narrow_to_filter(file.metadata)
        if has_several_hosts:
            metadata = with_host_in_names(metadata, file.host)
        accounts.append(_Account(metadata, file.row_count))
    return _check(accounts, failed, byte_mismatch)


def _check(
    accounts: Sequence[_Account], failed: int | None, byte_mismatch: int | None
) -> Completeness:
    captures = [account.metadata for account in accounts]
    counts = [capture.counts for capture in captures if capture.counts is not None]
    layers = [layer for count in counts for layer in count.by_layer.values()]
    causes = _lost_by_cause(counts)
    unwritten = sum(map(_unwritten, captures))
    unaccounted = sum(abs(layer.unaccounted) for layer in layers) - unwritten
    identity_lost = sum(layer.identity_lost for layer in layers)
    row_mismatch = sum(abs(_missing_rows(account)) for account in accounts)
    is_recovered = not all(capture.complete for capture in captures)
    devices = compare_with_diskstats(captures)
    differs = any(device.agrees is False for device in devices)
    lacks = (causes.total(), identity_lost, unaccounted, row_mismatch, byte_mismatch, is_recovered)
    has_ledger = len(counts) == len(captures)
    return Completeness(
        is_complete=False if differs or any(lacks) else True if has_ledger else None,
        recorded=sum(layer.recorded for layer in layers),
        recorded_by_layer=_recorded_by_layer(counts),
        cache_flushes=_cache_flushes(counts),
        lost=causes.total(),
        lost_by_cause=dict(causes),
        lost_by_layer=_lost_by_layer(counts),
        missed_by_device=_missed_by_device(counts),
        identity_lost=identity_lost,
        failed=_failed(captures) if failed is None else failed,
        in_flight=sum(count.in_flight_at_stop for count in counts),
        filtered=sum(count.filtered for count in counts),
        began_before=sum(count.began_before for count in counts),
        left_out=_left_out(counts),
        unaccounted=unaccounted,
        unwritten=unwritten,
        row_mismatch=row_mismatch,
        byte_mismatch=byte_mismatch,
        is_recovered=is_recovered,
        buffer_bytes=max((c.recorder.buffer_bytes for c in captures if c.recorder), default=None),
        note_count=sum(len(capture.notes) for capture in captures),
        gaps=tuple(sorted((g for count in counts for g in count.gaps), key=lambda gap: gap.start)),
        events=_add_up_events(counts),
        devices=devices,
    )


def _failed(captures: Sequence[Metadata]) -> int | None:
    """I/Os of what is shown that ended with an error, if every recording counted them."""
    if not all(capture.counts for capture in captures):
        return None
    found = [
        entry.failed
        for capture in captures
        for entry in shown_ledgers(capture, only_layer([capture]))
    ]
    return None if None in found else sum(filter(None, found))


def _lost_by_cause(counts: Iterable[Counts]) -> Counter[str]:
    causes: Counter[str] = Counter(dict.fromkeys(LOSS_CAUSES, 0))
    for count in counts:
        causes.update(count.lost)
    return causes


def _lost_by_layer(counts: Iterable[Counts]) -> dict[str, int]:
    """Of devices that were not asked for no layer loses more than all layers did of the others."""
    lost: Counter[str] = Counter()
    for count in counts:
        most = sum(count.lost.values())
        lost.update(
            {name: min(sum(one.lost.values()), most) for name, one in count.by_layer.items()}
        )
    return dict(lost)


def _left_out(counts: Iterable[Counts]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for count in counts:
        reasons.update(count.left_out)
    return {reason: number for reason, number in reasons.items() if number}


def _recorded_by_layer(counts: Iterable[Counts]) -> dict[str, int]:
    recorded: Counter[str] = Counter()
    for count in counts:
        recorded.update({name: layer.recorded for name, layer in count.by_layer.items()})
    return dict(recorded)


def _cache_flushes(counts: Iterable[Counts]) -> int:
    entries = (entry for count in counts for entry in count.devices)
    return sum(entry.recorded for entry in entries if entry.op == "flush")


def _missed_by_device(counts: Iterable[Counts]) -> dict[str, int]:
    missed: Counter[str] = Counter()
    for entry in (entry for count in counts for entry in count.devices):
        if entry.missed:
            missed[entry.device or "?"] += entry.missed
    return dict(missed)


def _add_up_events(counts: Iterable[Counts]) -> tuple[DeviceEvents, ...]:
    sums: Counter[tuple[str, str, str]] = Counter()
    for event in (event for count in counts for event in count.events):
        place = event.device or "", event.op
        for kind in _EVENT_KINDS:
            sums[*place, kind] += getattr(event, kind)
    return tuple(
        DeviceEvents(device, op, **{kind: sums[device, op, kind] for kind in _EVENT_KINDS})
        for device, op in sorted({(device, op) for device, op, _ in sums})
    )


def _unwritten(capture: Metadata) -> int:
    """What had completed, but was still on its way to the spool when that was cut off."""
    if capture.complete or capture.counts is None:
        return 0
    return sum(max(layer.unaccounted, 0) for layer in capture.counts.by_layer.values())


def _missing_rows(account: _Account) -> int:
    counts = account.metadata.counts
    if counts is None or account.row_count is None:
        return 0
    return counts.row_count - account.row_count
