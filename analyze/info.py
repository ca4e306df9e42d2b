"""Gathers what `iorec info` shows: what each file is and whether it is complete."""

from dataclasses import dataclass
from pathlib import Path

from analyze.capture import Capture
from analyze.completeness import Completeness, make_completeness
from analyze.metadata import Metadata


@dataclass(frozen=True)
class CaptureInfo:
    """A file; `bytes_per_io` is None if it holds no I/Os."""

    path: Path
    size_bytes: int
    io_count: int
    bytes_per_io: float | None
    duration_ns: int
    recorder_cpu_ns: int
    completeness: Completeness
    metadata: Metadata


@dataclass(frozen=True)
class Info:
    """The files of a capture, in the order in which they were given."""

    captures: tuple[CaptureInfo, ...]


def make_info(capture: Capture) -> Info:
    """Reads nothing but what was read when the capture was opened."""
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
                recorder_cpu_ns=round((recorder.cpu_user_s + recorder.cpu_system_s) * 1e9),
                completeness=make_completeness([file]),
                metadata=metadata,
            )
        )
    return Info(tuple(captures))
