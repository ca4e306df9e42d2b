# SPDX-License-Identifier: GPL-2.0-only
"""Words the verdict on a capture's completeness, and what to do about what is missing."""

from collections.abc import Sequence

from analyze.agreement import Agreement
from analyze.completeness import Completeness
from analyze.escape import escape_for_terminal
from analyze.units import format_bytes, format_count, format_counted

_CAUSE_NAMES = {
    "ring_full": "ring buffer full",
    "table_full": "in-flight table full",
    "missed_start": "start not seen",
    "missed_completion": "completion not seen",
    "spool_failed": "writing failed",
}
_ADVICE = {
    "table_full": "the table of I/Os in flight was full: record fewer devices (-d), or one layer",
    "missed_start": "the kernel skipped the program that sees I/Os start: the latencies of the"
    " others are right, counts are too low by that; a larger buffer does not help",
    "spool_failed": "what could not be written is missing: free some space, or record to another"
    " disk",
}
_LEFT_OUT = {
    "compat": "of 32-bit programs left out",
    "skipped": "that post no completion left out",
    "overflowed": "completions overflowed",
    "beyond": "of more than 132 in one io_submit left out",
}
_CALL_NAMES = {
    "syscall": "system call",
    "uring": "io_uring operation",
    "aio": "asynchronous I/O",
}
_MOST_NAMES = 3
_LARGEST_BUFFER = 1 << 30  # of iorec record
TOO_LOW = "counts, IOPS and throughput are too low"
OF_THESE_TOO_LOW = "their counts, IOPS and throughput are too low"
NO_ACCOUNT = "no account: nothing says whether these are all I/Os"


def format_completeness(completeness: Completeness) -> str:
    """The one line that everything which records or shows a capture prints."""
    if completeness.is_complete is None:
        return NO_ACCOUNT + format_failed(completeness)
    if not completeness.is_complete:
        return f"INCOMPLETE: {'; '.join(_shortcomings(completeness))}"
    left_out = (
        (completeness.filtered, "filtered out"),
        (completeness.began_before, "began before"),
        *((count, _LEFT_OUT.get(why, why)) for why, count in completeness.left_out.items()),
    )
    parts = [
        f"{format_recorded(completeness)} recorded",
        *(f"{format_count(count)} {what}" for count, what in left_out if count),
        "0 lost",
        f"{format_count(completeness.in_flight)} in flight{format_failed(completeness)}",
    ]
    is_checked = any(device.agrees for device in completeness.devices)
    return f"complete: {', '.join(parts)}" + "; agrees with /proc/diskstats" * is_checked


def advise(completeness: Completeness) -> tuple[str, ...]:
    """A line for each cause of what is missing: what it means, or what to do the next time."""
    lost = completeness.lost_by_cause
    lines = []
    if lost.get("ring_full") or completeness.identity_lost:
        lines.append(_advise_buffer(4 * (completeness.buffer_bytes or 0)))
    if lost.get("missed_completion"):
        lines.append(_explain_missed(completeness))
    return (*lines, *(advice for cause, advice in _ADVICE.items() if lost.get(cause)))


def cause_name(cause: str) -> str:
    """A loss cause in words; one of a later release as it is."""
    return _CAUSE_NAMES.get(cause) or escape_for_terminal(cause)


def _advise_buffer(wanted_bytes: int) -> str:
    if wanted_bytes > _LARGEST_BUFFER:
        return "the ring buffer was full, and is as large as it can be: record less with -d or --op"
    larger = f" {max(wanted_bytes >> 20, 1)}M" if wanted_bytes else ""
    return f"the ring buffer was full: record with a larger one, -B{larger}"


def _explain_missed(completeness: Completeness) -> str:
    devices = [
        f"{escape_for_terminal(device)} ({format_count(count)})"
        for device, count in sorted(
            completeness.missed_by_device.items(), key=lambda missed: missed[1], reverse=True
        )
    ]
    where = f" on {_first(devices)}" if devices else ""
    return (
        f"the kernel hid completions{where} from tracing programs: the latencies of the others"
        " are right, counts are too low by that; a larger buffer does not help"
    )


def format_recorded(completeness: Completeness) -> str:
    """`1,234 I/Os`, or `1,234 requests and 5,678 bios`, which are not to be added up.

    Cache flushes are requests.
    """
    flushes = completeness.cache_flushes
    kinds = dict(completeness.recorded_by_layer)
    if "request" in kinds:
        kinds["request"] -= flushes
    names = _CALL_NAMES
    if kinds.keys() <= {"request", *names}:
        names = names | {"request": "I/O"}
    parts = [
        format_counted(count, escape_for_terminal(names.get(name, name)))
        for name, count in kinds.items()
    ]
    if flushes:
        parts.append(format_counted(flushes, "cache flush"))
    return _listed(parts) if parts else NO_ACCOUNT


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def format_failed(completeness: Completeness) -> str:
    """`, 3 failed`, if any did."""
    return f", {format_count(completeness.failed)} failed" if completeness.failed else ""


def _shortcomings(completeness: Completeness) -> list[str]:
    """What is missing, and then what there is."""
    in_flight = f"{format_count(completeness.in_flight)} in flight{format_failed(completeness)}"
    said = _contradictions(completeness)
    if completeness.identity_lost:
        count = format_counted(completeness.identity_lost, "I/O")
        said.insert(0, f"{count} without a submitter: no room in the ring buffer")
    if completeness.lost:
        layers = _lossy_layers(completeness)
        recorded = sum(completeness.recorded_by_layer[layer] for layer in layers)
        total = _counted_of_layers(layers, recorded + completeness.lost)
        lost = f"{format_count(completeness.lost)} of {total} lost ({_causes(completeness)})"
        others = len(layers) < len(completeness.recorded_by_layer)
        return [f"{lost}, {in_flight}", *said, OF_THESE_TOO_LOW if others else TOO_LOW]
    if not completeness.recorded_by_layer:
        return [*said, NO_ACCOUNT]
    return [*said, f"{format_recorded(completeness)} recorded, {in_flight}"]


def _lossy_layers(completeness: Completeness) -> list[str]:
    """Those that lost something; all, where it is not known of which layers what was lost is."""
    lost = completeness.lost_by_layer
    layers = list(completeness.recorded_by_layer)
    if sum(lost.values()) != completeness.lost:
        return layers
    return [layer for layer in layers if lost.get(layer)] or layers


def _counted_of_layers(layers: Sequence[str], count: int) -> str:
    """`1,234 I/Os`, or `2,468 requests and bios`: several layers see the same I/O."""
    names = [escape_for_terminal(_CALL_NAMES.get(layer, layer)) for layer in layers]
    if names in ([], ["request"]):
        names = ["I/O"]
    if len(names) == 1:
        return format_counted(count, names[0])
    return f"{format_count(count)} {_listed([f'{name}s' for name in names])}"


def _causes(completeness: Completeness) -> str:
    """The cause of what was lost; if there are several, with the count of each."""
    counts = {cause: count for cause, count in completeness.lost_by_cause.items() if count}
    if len(counts) == 1:
        return cause_name(*counts)
    return ", ".join(
        f"{cause_name(cause)}: {format_count(count)}" for cause, count in counts.items()
    )


def _contradictions(completeness: Completeness) -> list[str]:
    """What does not fit together, and what is known to be missing at the end."""
    said = []
    if completeness.is_recovered:
        at_least = f" (more than {format_counted(completeness.unwritten, 'I/O')})"
        at_least *= bool(completeness.unwritten)
        said.append(f"its end is missing{at_least}, as the recording was cut off")
    if completeness.unaccounted:
        said.append(f"{format_counted(completeness.unaccounted, 'completion')} unaccounted for")
    if completeness.row_mismatch:
        said.append(f"{format_counted(completeness.row_mismatch, 'row')} too many or too few")
    if completeness.byte_mismatch:
        size, more = completeness.byte_mismatch, completeness.byte_mismatch > 0
        said.append(
            f"the rows hold {format_bytes(abs(size))} {'more' if more else 'less'} than was counted"
        )
    differing = [device for device in completeness.devices if device.agrees is False]
    if differing:
        said.append(f"differs from /proc/diskstats on {_names_of(differing)}")
    return said


def _names_of(devices: Sequence[Agreement]) -> str:
    return _first(list(dict.fromkeys(escape_for_terminal(row.device) for row in devices)))


def _first(names: Sequence[str]) -> str:
    left_out = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + left_out
