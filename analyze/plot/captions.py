# SPDX-License-Identifier: GPL-2.0-only
"""The words around the charts: title, subtitle, messages."""

from collections.abc import Sequence
from textwrap import shorten

from analyze.errnos import errno_name
from analyze.opened import OpenedRows
from analyze.plot.contents import Contents, OnlyIo
from analyze.plot.theme import drawable
from analyze.plot.timeline import Timeline
from analyze.units import format_bytes, format_count, format_counted, format_duration, format_time

_MOST_NAMES = 4
_LONGEST_HOST = 64
_LONGEST_TITLE = 85


def title(capture: OpenedRows, contents: Contents) -> str:
    """Host and devices."""
    hosts = sorted({drawable(file.host, _LONGEST_HOST) for file in capture.files})
    devices = [drawable(device) for device in contents.devices]
    names = (_some(hosts, len(hosts)), _some(devices, contents.device_count))
    return shorten(" · ".join(filter(None, names)), _LONGEST_TITLE, placeholder=" …")


def subtitle(capture: OpenedRows, contents: Contents, timeline: Timeline) -> str:
    """When, how long, how many, under which kernel."""
    systems = sorted(
        {
            f"Linux {drawable(metadata.kernel)} {drawable(metadata.machine)}, {metadata.cpus} CPUs"
            for metadata in (file.metadata for file in capture.files)
            if metadata.kernel
        }
    )
    counts = (
        (contents.io_count, format_counted(contents.io_count, _kind(capture))),
        (contents.failed_count, f"{format_count(contents.failed_count)} failed"),
        (contents.cache_flush_count, format_counted(contents.cache_flush_count, "cache flush")),
    )
    parts = (
        format_time(timeline.begin_ns),
        format_duration(timeline.length_ns),
        ", ".join(text for count, text in counts if count),
        _some(systems, len(systems)),
    )
    return "  ·  ".join(filter(None, parts))


def _kind(capture: OpenedRows) -> str:
    """What one I/O is, if they are not requests."""
    layers = {layer for file in capture.files for layer in file.metadata.layers}
    return "bio" if capture.selection.layer == "bio" or layers == {"bio"} else "I/O"


def only_io(io: OnlyIo) -> str:
    """A sentence in three lines for a capture whose charts would be empty."""
    at = "" if io.offset is None else f" at {format_bytes(io.offset)}"
    size = format_bytes(io.size_bytes)
    took = "did not complete" if io.latency_ns is None else f"took {format_duration(io.latency_ns)}"
    if io.errno:
        took = f"failed with {errno_name(io.errno)} after {format_duration(io.latency_ns)}"
    return (
        f"Only one I/O: {drawable(io.op)} of {size} on {drawable(io.device)}{at}\n"
        f"by {process_name(io.comm, io.pid)} on {format_time(io.time_ns)}\n{took}"
    )


def process_name(comm: str | None, pid: int | None, host: str | None = None) -> str:
    """The thread's name and the process's number, and the host if there are several."""
    name = drawable(comm) if pid is None else f"{drawable(comm)} ({pid})"
    return name if host is None else f"{drawable(host)}: {name}"


def _some(names: Sequence[str], total: int) -> str:
    shown = names[:_MOST_NAMES]
    left_out = f" and {total - len(shown)} more" if total > len(shown) else ""
    return ", ".join(shown) + left_out
