"""Words the lines that record prints before and after."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analyze.completeness import make_completeness_of
from analyze.metadata import parse_metadata
from analyze.units import format_bytes, format_count, format_duration
from analyze.verdict import advise, format_completeness
from iorec.devices import disk_of_file
from iorec.filters import Filters, filter_options
from iorec.output import leftover_spools
from iorec.session import Settings

if TYPE_CHECKING:
    from iorec.recording import Result


def format_start(settings: Settings, *, has_trace: bool) -> str:
    """What is recorded, where to and how to stop."""
    end = "when the command ends" if settings.workload else "with Ctrl-C"
    if settings.limits.duration_ns is not None:
        end = f"after {format_duration(settings.limits.duration_ns)} or {end}"
    if settings.limits.count is not None:
        end = f"after {format_count(settings.limits.count)} I/Os or {end}"
    line = (
        f"recording {_scope(settings.layers, settings.filters)} to {settings.output}; stops {end}"
    )
    if has_trace:
        line += "\nthe kernel programs print to /sys/kernel/tracing/trace_pipe: cat it as root"
    elif settings.is_verbose:
        line += "\nwarning: this kernel lets no program print to trace_pipe"
    return line


def format_end(result: "Result") -> str:
    """What was recorded, what was lost, and the next command."""
    counts = result.metadata["counts"]
    duration = format_duration(result.metadata["duration_s"] * 1e9)
    layers = counts.get("layers") or {"request": counts}  # earlier captures have but one
    recorded = " and ".join(
        f"{format_count(layers[layer]['recorded'])} {layer if len(layers) > 1 else 'I/O'}s, "
        f"{format_bytes(_recorded_bytes(counts, layer))}"
        for layer in layers
    )
    return "\n".join(
        (
            f"{recorded} in {duration}; {format_count(result.lost)} lost",
            f"{result.path} ({format_bytes(result.size_bytes)})",
            f"next: iorec report {result.path}",
        )
    )


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a finished capture, however quiet the recording was asked to be."""

    is_complete: bool
    message: str
    warnings: tuple[str, ...]
    hint: str  # what would have helped


def verdict(result: "Result") -> Verdict:
    """Whether the capture holds every I/O that was asked for, and if not, why."""
    metadata = parse_metadata(json.dumps(result.metadata).encode())
    completeness = make_completeness_of(metadata)
    message, advice = format_completeness(completeness), advise(completeness)
    warnings = [] if completeness.is_complete else [message, *advice]
    counts = result.metadata["counts"]
    rows = counts["recorded"] + counts["in_flight_at_stop"]
    warnings.append(format_unmatched(result.metadata["filters"], rows, counts["filtered"]))
    return Verdict(
        is_complete=bool(completeness.is_complete),
        message=message,
        warnings=tuple(f"warning: {line}" for line in warnings if line),
        hint=advice[0] if advice else "see what iorec report says of it",
    )


def format_unmatched(filters: Mapping[str, Any], rows: int, filtered: int) -> str:
    """What to warn of if there were I/Os, but none that the filters let through; else nothing."""
    options = filter_options(filters)
    if rows or not filtered or not options:
        return ""
    return f"nothing matched {options}; {format_count(filtered)} I/Os were filtered out"


def format_warnings(settings: Settings) -> list[str]:
    """What the user may not know of the output's folder."""
    folder, wanted = settings.output.parent, settings.filters.resolved_device
    if not folder.is_dir():
        return []
    warnings = [
        f"warning: {part} is left of an interrupted recording: iorec recover {part}"
        for part in leftover_spools(folder)
    ]
    disk = disk_of_file(folder)
    if disk is not None and (not wanted or disk in wanted):
        warnings.append(
            f"warning: {settings.output} lies on {disk}, which is recorded: "
            "writing the capture adds I/Os of the kernel's writeback to it"
        )
    return warnings


def _recorded_bytes(counts: dict[str, Any], layer: str) -> int:
    return sum(row["recorded_bytes"] for row in counts["devices"] if row["layer"] == layer)


def _scope(layers: Sequence[str], filters: Filters) -> str:
    """E.g. `read/write requests of sda by pid 12`."""
    kinds = " and ".join(f"{layer}s" for layer in layers)
    parts = [f"{'/'.join(filters.op) if filters.op else 'block'} {kinds}"]
    parts.append(f"of {_devices(filters)}" if filters.device else "of all devices")
    for word, values in (("pid", filters.pid), ("comm", filters.comm), ("cgroup", filters.cgroup)):
        if values:
            parts.append(f"by {word} {', '.join(map(str, values))}")
    if filters.min_latency_ns is not None:
        parts.append(f"that take {format_duration(filters.min_latency_ns)} or more")
    return " ".join(parts)


def _devices(filters: Filters) -> str:
    """As they were typed, and what they stand for unless that says it."""
    typed, meant = ", ".join(filters.device), ", ".join(filters.resolved_device)
    return typed if {*filters.device} == {*filters.resolved_device} else f"{typed} ({meant})"
