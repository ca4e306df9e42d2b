"""Words the lines that record prints before and after."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analyze.units import format_bytes, format_count, format_duration
from iorec.devices import disk_of_file
from iorec.filters import Filters
from iorec.output import leftover_spools

if TYPE_CHECKING:
    from iorec.recording import Result
    from iorec.session import Settings


def format_start(settings: "Settings", *, has_trace: bool) -> str:
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
    lines = [
        f"{recorded} in {duration}; {format_count(result.lost)} lost",
        f"{result.path} ({format_bytes(result.size_bytes)})",
        f"next: iorec report {result.path}",
    ]
    if counts["lost"].get("ring_full"):
        buffer = result.metadata["recorder"]["buffer_bytes"]
        lines.append(
            f"warning: the kernel buffer overflowed: record with -B {max(4 * buffer >> 20, 1)}M"
        )
    return "\n".join(lines)


def format_warnings(settings: "Settings") -> list[str]:
    """What the user may not know of the output's folder."""
    folder, wanted = settings.output.parent, settings.filters.device
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
    parts.append(f"of {', '.join(filters.device)}" if filters.device else "of all devices")
    for word, values in (("pid", filters.pid), ("comm", filters.comm), ("cgroup", filters.cgroup)):
        if values:
            parts.append(f"by {word} {', '.join(map(str, values))}")
    if filters.min_latency_ns is not None:
        parts.append(f"that take {format_duration(filters.min_latency_ns)} or more")
    return " ".join(parts)
