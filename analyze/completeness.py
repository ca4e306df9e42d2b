"""Says whether a capture holds every I/O, and if not, what is missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from analyze.agreement import Agreement, compare_with_diskstats
from analyze.metadata import Counts, DeviceEvents, Gap
from analyze.names import escape_for_terminal
from analyze.schema import LOSS_CAUSES
from analyze.sources import CaptureFile
from analyze.units import format_count

_CAUSE_NAMES = {
    "ring_full": "ring buffer full",
    "table_full": "in-flight table full",
    "missed_start": "start not seen",
    "missed_completion": "completion not seen",
    "spool_failed": "writing failed",
}
_EVENT_KINDS = ("merges", "splits", "requeues")
TOO_LOW = "counts, IOPS and throughput are too low"


@dataclass(frozen=True)
class Completeness:
    """The ledgers of all captures, added up and checked."""

    is_complete: bool
    recorded: int
    recorded_by_layer: dict[str, int]
    lost: int
    lost_by_cause: dict[str, int]  # also when 0
    in_flight: int
    filtered: int
    began_before: int
    unaccounted: int  # completions that the ledger does not explain: 0 when it closes
    unwritten: int  # of a recovered capture: completions known when the last rows were written
    row_mismatch: int  # rows by which the files differ from their ledgers
    is_recovered: bool  # the recording was cut off
    gaps: tuple[Gap, ...]  # when I/Os were lost, in time order
    events: tuple[DeviceEvents, ...]  # by device and op, where there were any
    devices: tuple[Agreement, ...]


def make_completeness(files: Sequence[CaptureFile]) -> Completeness:
    """Adds up the ledgers of the captures and checks them."""
    counts = [file.metadata.counts for file in files]
    causes: Counter[str] = Counter(dict.fromkeys(LOSS_CAUSES, 0))
    for count in counts:
        causes.update(count.lost)
    layers = [(name, layer) for count in counts for name, layer in count.by_layer.items()]
    unwritten = sum(_unwritten(file) for file in files)
    unaccounted = sum(abs(layer.unaccounted) for _, layer in layers) - unwritten
    recorded: Counter[str] = Counter()
    for name, layer in layers:
        recorded[name] += layer.recorded
    row_mismatch = sum(abs(_missing_rows(file)) for file in files)
    is_recovered = not all(file.metadata.complete for file in files)
    devices = compare_with_diskstats([file.metadata for file in files])
    differs = any(device.agrees is False for device in devices)
    shortcomings = (causes.total(), unaccounted, row_mismatch, is_recovered, differs)
    return Completeness(
        is_complete=not any(shortcomings),
        recorded=recorded.total(),
        recorded_by_layer=dict(recorded),
        lost=causes.total(),
        lost_by_cause=dict(causes),
        in_flight=sum(count.in_flight_at_stop for count in counts),
        filtered=sum(count.filtered for count in counts),
        began_before=sum(count.began_before for count in counts),
        unaccounted=unaccounted,
        unwritten=unwritten,
        row_mismatch=row_mismatch,
        is_recovered=is_recovered,
        gaps=tuple(sorted((g for count in counts for g in count.gaps), key=lambda gap: gap.start)),
        events=_add_up_events(counts),
        devices=devices,
    )


def format_completeness(completeness: Completeness) -> str:
    """The one line that everything which shows a capture prints."""
    if not completeness.is_complete:
        return f"INCOMPLETE: {'; '.join(_shortcomings(completeness))}"
    left_out = (
        (completeness.filtered, "filtered out"),
        (completeness.began_before, "began before"),
    )
    parts = [
        f"{_recorded(completeness)} recorded",
        *(f"{format_count(count)} {what}" for count, what in left_out if count),
        "0 lost",
        f"{format_count(completeness.in_flight)} in flight",
    ]
    is_checked = any(device.agrees for device in completeness.devices)
    return f"complete: {', '.join(parts)}" + "; agrees with /proc/diskstats" * is_checked


def _add_up_events(counts: Sequence[Counts]) -> tuple[DeviceEvents, ...]:
    sums: Counter[tuple[str, str, str]] = Counter()
    for event in (event for count in counts for event in count.events):
        place = event.device or "", event.op
        for kind in _EVENT_KINDS:
            sums[*place, kind] += getattr(event, kind)
    return tuple(
        DeviceEvents(device, op, **{kind: sums[device, op, kind] for kind in _EVENT_KINDS})
        for device, op in sorted({(device, op) for device, op, _ in sums})
    )


def _recorded(completeness: Completeness) -> str:
    """`1,234 I/Os`, or `1,234 requests and 5,678 bios`, which are not to be added up."""
    by_layer = completeness.recorded_by_layer
    if list(by_layer) == ["request"]:
        return f"{format_count(completeness.recorded)} I/Os"
    parts = (f"{format_count(count)} {escape_for_terminal(n)}s" for n, count in by_layer.items())
    return " and ".join(parts)


def _shortcomings(completeness: Completeness) -> list[str]:
    in_flight = f"{format_count(completeness.in_flight)} in flight"
    said = []
    if completeness.lost:
        causes = ", ".join(
            f"{format_count(count)} {_CAUSE_NAMES.get(cause, escape_for_terminal(cause))}"
            for cause, count in completeness.lost_by_cause.items()
            if count
        )
        total = completeness.recorded + completeness.lost
        lost = f"{format_count(completeness.lost)} of {format_count(total)} I/Os lost ({causes})"
        said.append(f"{lost}, {in_flight}")
    else:
        recorded = f"{_recorded(completeness)} recorded"
        said.append(f"{recorded}, 0 known to be lost, {in_flight}")
    if completeness.is_recovered:
        at_least = f" (more than {format_count(completeness.unwritten)} I/Os)"
        said.append(
            "recovered from a recording that was cut off, so its end is missing"
            + at_least * bool(completeness.unwritten)
        )
    if completeness.unaccounted:
        said.append(f"{format_count(completeness.unaccounted)} completions are unaccounted for")
    if completeness.row_mismatch:
        said.append(f"{format_count(completeness.row_mismatch)} rows too many or too few")
    differing = [device for device in completeness.devices if device.agrees is False]
    if differing:
        said.append(f"differs from /proc/diskstats on {_first_names(differing)}")
    if completeness.lost:
        said.append(TOO_LOW)
    return said


def _first_names(devices: Sequence[Agreement]) -> str:
    names = list(dict.fromkeys(escape_for_terminal(device.device) for device in devices))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unwritten(file: CaptureFile) -> int:
    """What had completed, but was still on its way to the spool when that was cut off."""
    if file.metadata.complete:
        return 0
    return sum(max(layer.unaccounted, 0) for layer in file.metadata.counts.by_layer.values())


def _missing_rows(file: CaptureFile) -> int:
    counts = file.metadata.counts
    return counts.recorded + counts.in_flight_at_stop - file.row_count
