# SPDX-License-Identifier: GPL-2.0-only
"""The words around the charts: title, subtitle, messages."""

from collections.abc import Sequence
from textwrap import shorten

from analyze.errnos import errno_name
from analyze.metadata import Filters
from analyze.opened import OpenedRows
from analyze.plot.contents import Contents, OnlyIo
from analyze.plot.owners import Owner
from analyze.plot.theme import drawable
from analyze.plot.timeline import Timeline
from analyze.units import (
    format_bytes,
    format_count,
    format_counted,
    format_duration,
    format_time,
)

_MOST_NAMES = 4
_LONGEST_HOST = 64
_LONGEST_TITLE = 85
_LONGEST_CONDITION = 150
_LONGEST_PATH = 22


def title(capture: OpenedRows, contents: Contents) -> str:
    """Host and devices."""
    hosts = sorted({drawable(file.host, _LONGEST_HOST) for file in capture.files})
    devices = [drawable(device) for device in contents.devices.shown]
    names = (_some(hosts, len(hosts)), _some(devices, contents.devices.count))
    return shorten(" · ".join(filter(None, names)), _LONGEST_TITLE, placeholder=" …")


def subtitle(
    capture: OpenedRows, contents: Contents, timeline: Timeline, left_out_count: int
) -> str:
    """When, how long, how many, under which kernel, and how many devices have no chart."""
    systems = sorted(
        {
            f"Linux {drawable(metadata.kernel)} {drawable(metadata.machine)}, {metadata.cpus} CPUs"
            for metadata in (file.metadata for file in capture.files)
            if metadata.kernel
        }
    )
    counts = (
        (contents.io_count, format_counted(contents.io_count, "I/O")),
        (contents.failed_count, f"{format_count(contents.failed_count)} failed"),
        (contents.hung_count, f"{format_count(contents.hung_count)} not completed"),
        (contents.cache_flush_count, format_counted(contents.cache_flush_count, "cache flush")),
    )
    parts = (
        format_time(timeline.begin_ns),
        f"{format_duration(timeline.length_ns)} in bins of {format_duration(timeline.width_ns)}",
        ", ".join(text for count, text in counts if count),
        f"layer {_layer(capture)}",
        _some(systems, len(systems)),
        f"{format_counted(left_out_count, 'more device')} not shown" if left_out_count else "",
    )
    return "  ·  ".join(filter(None, parts))


def narrowing(capture: OpenedRows) -> str:
    """What is left out: by the window, the condition and the recordings; mostly nothing."""
    where = capture.selection.where
    filters = sorted({_filters(file.metadata.filters) for file in capture.files})
    filtered = _some([each or "everything" for each in filters], len(filters))
    parts = (
        _window(capture),
        f"recorded: {filtered}" if any(filters) else "",
        "" if where is None else f"where {drawable(where, _LONGEST_CONDITION)}",
    )
    return "  ·  ".join(filter(None, parts))


def _window(capture: OpenedRows) -> str:
    selection = capture.selection
    begin = "" if selection.begin_s is None else f"from {selection.begin_s:.9g} s"
    end = "" if selection.end_s is None else f"up to {selection.end_s:.9g} s"
    return " ".join(filter(None, (begin, end)))


def _layer(capture: OpenedRows) -> str:
    """The chosen layer, or those that were recorded: then a device shows its first."""
    recorded = {layer for file in capture.files for layer in file.metadata.layers}
    return capture.selection.layer or ", ".join(sorted(map(drawable, recorded), reverse=True))


def _filters(filters: Filters) -> str:
    """What a recording was narrowed to; nothing if to nothing."""
    names = ("device", "pid", "comm", "cgroup", "op")
    parts = [f"{name} {_names(getattr(filters, name))}" for name in names if getattr(filters, name)]
    if filters.min_latency_ns is not None:
        parts.append(f"latency from {format_duration(filters.min_latency_ns)}")
    return " and ".join(parts)


def _names(values: Sequence[object]) -> str:
    return _some([drawable(str(value)) for value in values], len(values))


def only_io(io: OnlyIo) -> str:
    """A sentence in three lines for a capture whose charts would be empty."""
    at = "" if io.offset is None else f" at {format_bytes(io.offset)}"
    size = format_bytes(io.size_bytes)
    took = "did not complete" if io.latency_ns is None else f"took {format_duration(io.latency_ns)}"
    if io.errno:
        took = f"failed with {errno_name(io.errno)} after {format_duration(io.latency_ns)}"
    return (
        f"Only one I/O: {drawable(io.op)} of {size} on {drawable(io.device)}{at}\n"
        f"by {owner_name(Owner(None, io.process, io.pid))} on {format_time(io.time_ns)}\n{took}"
    )


def owner_name(owner: Owner) -> str:
    """The name, of a path the end, the process's number, and the host if there are several."""
    is_long = owner.name is not None and len(owner.name) > _LONGEST_PATH
    shown = f"…{owner.name[-_LONGEST_PATH:]}" if owner.name is not None and is_long else owner.name
    name = drawable(shown, 4 * _LONGEST_PATH)
    if owner.pid is not None:
        name = f"{name} ({owner.pid})"
    return name if owner.host is None else f"{drawable(owner.host)}: {name}"


def _some(names: Sequence[str], total: int) -> str:
    shown = names[:_MOST_NAMES]
    left_out = f" and {total - len(shown)} more" if total > len(shown) else ""
    return ", ".join(shown) + left_out
