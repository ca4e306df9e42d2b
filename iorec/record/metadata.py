# SPDX-License-Identifier: GPL-2.0-only
"""Builds the metadata that make a capture explain itself."""

import os
import platform
import resource
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from analyze.metadata import (
    FORMAT_VERSION,
    Clock,
    ClockReading,
    Counts,
    Device,
    Filters,
    Metadata,
    Recorder,
    Workload,
)
from iorec.host.cgroups import cgroup_version
from iorec.host.diskstats import StatPair, diskstats_delta
from iorec.host.escape import escape_name
from iorec.host.notes import Notes
from iorec.record.settings import Settings


def begin_metadata(settings: Settings, start: ClockReading) -> Metadata:
    """What is known of a capture when its recording begins."""
    started_at = start.time_at(start.monotonic_ns)
    return Metadata(
        format_version=FORMAT_VERSION,
        iorec_version=settings.version,
        hostname=_as_text([platform.node()])[0],
        kernel=platform.release(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
        command=_as_text(settings.command),
        workload=_workload(settings),
        started_at=started_at,
        stopped_at=started_at,
        duration_s=0.0,
        clock=Clock(start, start, ()),
        filters=_filters(settings.filters),
        layers=settings.layers,
        devices=(),
        counts=None,
        diskstats={},
        recorder=None,
        complete=False,
        boot_id=_boot_id(),
        cgroup_version=cgroup_version(),
    )


def continue_metadata(
    first: Metadata,
    clock: Clock,
    counts: Counts,
    devices: tuple[Device, ...],
    notes: Notes,
    earlier_notes: Mapping[tuple[str, str], int],
    buffer_bytes: int,
    kernel_memory_bytes: int,
) -> Metadata:
    """The same as things stand now, at the stop of `clock`, if nothing else comes."""
    start, now = clock.start, clock.stop
    return replace(
        first,
        stopped_at=start.time_at(now.monotonic_ns),
        duration_s=(now.monotonic_ns - start.monotonic_ns) / 1e9,
        clock=clock,
        devices=devices,
        counts=counts,
        recorder=_recorder(buffer_bytes, kernel_memory_bytes, notes),
        notes=notes.since(start, earlier_notes),
    )


def end_metadata(
    last: Metadata, stats: tuple[StatPair, StatPair], exit_status: int | None
) -> Metadata:
    """The same of a recording that ended in order.

    `stats` are the readings of diskstats around the start and the stop.
    """
    return replace(
        last,
        workload=last.workload and replace(last.workload, exit_status=exit_status),
        diskstats=diskstats_delta(*stats),
        complete=True,
    )


def _workload(settings: Settings) -> Workload | None:
    """The command that was recorded, or its first word if command lines are not to be told."""
    words = settings.workload if settings.has_cmdlines else settings.workload[:1]
    return Workload(_as_text(words), None) if words else None


def _as_text(values: Iterable[str]) -> tuple[str, ...]:
    """The same, with bytes that are not UTF-8 escaped, which Python has as surrogates."""
    return tuple(value if value.isascii() else escape_name(os.fsencode(value)) for value in values)


def _filters(filters: Filters) -> Filters:
    return replace(
        filters,
        device=_as_text(filters.device),
        comm=_as_text(filters.comm),
        cgroup=_as_text(filters.cgroup),
        op=_as_text(filters.op),
        syscall=_as_text(filters.syscall),
        resolved_device=_as_text(filters.resolved_device),
    )


def _recorder(buffer_bytes: int, kernel_memory_bytes: int, notes: Notes) -> Recorder:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: that includes what the process was before its exec.
    peak_kib = 0
    with notes.guard("memory of the recorder"):
        with Path("/proc/self/status").open("rb", buffering=0) as file:
            status = file.read(1 << 14)
        peak_kib = int(status.partition(b"VmHWM:")[2].split(None, 1)[0])
    return Recorder(
        usage.ru_utime, usage.ru_stime, peak_kib * 1024, buffer_bytes, kernel_memory_bytes
    )


def _boot_id() -> str | None:
    """Differs from boot to boot, also of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
