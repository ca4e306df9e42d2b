# SPDX-License-Identifier: GPL-2.0-only
"""What a finished recording or recovery has made."""

from dataclasses import dataclass
from pathlib import Path

from analyze.errors import IorecError
from analyze.metadata import Metadata


@dataclass(frozen=True)
class FlightResult:
    """What a flight recorder has written, and what it saw from its begin to its end."""

    captures: tuple[Path, ...]
    metadata: Metadata | None
    exit_status: int | None  # of a workload that ended by itself
    failure: IorecError | None


@dataclass(frozen=True)
class Result:
    """A finished capture."""

    path: Path
    size_bytes: int
    metadata: Metadata
    exit_status: int | None  # of a workload that ended by itself
    failure: IorecError | None = None  # what ended the recording early
    kept: tuple[Path, ...] = ()  # of a rotating recording, the files before it, the oldest first
    spool_bytes: int = 0  # written while recording, of all files
    earlier: tuple[str, ...] = ()  # of the files before it, the last that are incomplete, and why
