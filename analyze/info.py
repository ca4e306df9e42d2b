# SPDX-License-Identifier: GPL-2.0-only
"""Gathers what `iorec info` shows: what each file is and whether it is complete."""

from dataclasses import dataclass
from pathlib import Path

from analyze.completeness import Completeness, make_completeness
from analyze.metadata import Metadata, Recorder
from analyze.opened import OpenedRows
from analyze.stacks import Level, find_levels


@dataclass(frozen=True)
class CaptureInfo:
    """A file; `bytes_per_io` is None if it holds no I/Os."""

    path: Path
    size_bytes: int
    io_count: int
    bytes_per_io: float | None
    duration_ns: int
    recorder_cpu_ns: int | None
    completeness: Completeness
    levels: tuple[Level, ...]
    metadata: Metadata


@dataclass(frozen=True)
class Info:
    """The files of a capture, in the order in which they were given, and paths to them again."""

    captures: tuple[CaptureInfo, ...]
    repeats: tuple[Path, ...]


def make_info(capture: OpenedRows) -> Info:
    """Reads nothing but what was read when the capture was opened: no bytes are added up."""
    captures = []
    for file in capture.files:
        metadata = file.metadata
        recorder = metadata.recorder
        captures.append(
            CaptureInfo(
                path=file.path,
                size_bytes=file.size_bytes,
                io_count=file.row_count,
                bytes_per_io=file.size_bytes / file.row_count if file.row_count else None,
                duration_ns=metadata.stopped_at - metadata.started_at,
                recorder_cpu_ns=None if recorder is None else _cpu_ns(recorder),
                completeness=make_completeness([file]),
                levels=find_levels([file]),
                metadata=metadata,
            )
        )
    return Info(tuple(captures), capture.repeats)


def _cpu_ns(recorder: Recorder) -> int:
    return round((recorder.cpu_user_s + recorder.cpu_system_s) * 1e9)
