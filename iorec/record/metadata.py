# SPDX-License-Identifier: GPL-2.0-only
"""Builds the metadata that makes a capture explain itself."""

import os
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyze.schema import FORMAT_VERSION
from iorec.host.clock import ClockPair, format_time
from iorec.host.device_inventory import Description
from iorec.host.diskstats import StatPair, diskstats_delta
from iorec.host.escape import escape_name
from iorec.host.notes import Notes
from iorec.record.gaps import Span
from iorec.record.settings import Filters
from iorec.store.metadata_json import Metadata


@dataclass(frozen=True)
class Facts:
    """What is known before the recording starts."""

    iorec_version: str
    command: tuple[str, ...]
    workload: tuple[str, ...]
    layers: tuple[str, ...]
    filters: Filters
    buffer_bytes: int


def build_metadata(
    facts: Facts,
    clocks: tuple[ClockPair, ClockPair],
    clock_steps: list[tuple[int, int]],
    counts: dict[str, Any],
    gaps: Mapping[str, Sequence[Span]],
    stats: tuple[StatPair, StatPair] | None,
    exit_status: int | None,
    devices: list[Description],
    notes: Notes,
) -> Metadata:
    """The JSON object that the capture format describes, as things stand now.

    `clocks` are those of the start and of now; `clock_steps` and `gaps` as the recorder and the
    ledger keep them. `stats` are the readings of diskstats around the start and the stop; without
    them the recording is not complete.
    """
    start, now = clocks
    duration_ns = now.monotonic_ns - start.monotonic_ns

    def time_at(monotonic_ns: int) -> str:
        return format_time(monotonic_ns + start.offset_ns)

    workload = {"argv": _as_text(facts.workload), "exit_status": exit_status}
    counts["gaps"] = [
        {"start": time_at(span.first_ns), "stop": time_at(span.last_ns), "lost": span.lost}
        | {"cause": cause}
        for cause, spans in gaps.items()
        for span in spans
    ]
    steps = [{"time": time_at(moment), "step_ns": step} for moment, step in clock_steps]
    return {
        "format_version": FORMAT_VERSION,
        "iorec_version": facts.iorec_version,
        "hostname": _as_text(platform.node()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "command": _as_text(facts.command),
        "workload": workload if facts.workload else None,
        "started_at": time_at(start.monotonic_ns),
        "stopped_at": time_at(now.monotonic_ns),
        "duration_s": duration_ns / 1e9,
        "clock": {"start": asdict(start), "stop": asdict(now), "steps": steps},
        "filters": _as_text(facts.filters.as_metadata()),
        "layers": list(facts.layers),
        "devices": devices,
        "counts": counts,
        "diskstats": diskstats_delta(*stats) if stats else {},
        "recorder": _recorder(facts, notes),
        "complete": stats is not None,
        "boot_id": _boot_id(),
        "notes": notes.as_metadata(start.monotonic_ns, time_at),
    }


def _boot_id() -> str | None:
    """Differs from boot to boot, also of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _as_text(value: Any) -> Any:
    """The same, with bytes that are not UTF-8 escaped, which Python has as surrogates."""
    if isinstance(value, str):
        return value if value.isascii() else escape_name(os.fsencode(value))
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return value


def _recorder(facts: Facts, notes: Notes) -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: that includes what the process was before its exec.
    peak_kib = 0
    with notes.guard("memory of the recorder"):
        status = Path("/proc/self/status").read_text()
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return {
        "cpu_user_s": usage.ru_utime,
        "cpu_system_s": usage.ru_stime,
        "peak_memory_bytes": peak_kib * 1024,
        "buffer_bytes": facts.buffer_bytes,
    }
