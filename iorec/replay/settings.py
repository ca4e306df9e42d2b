# SPDX-License-Identifier: GPL-2.0-only
"""Says what to replay, onto what and how."""

from dataclasses import dataclass
from pathlib import Path

from analyze.capture_name import CaptureName

LOOPS = ("by-thread", "open", "closed")
WRITES = ("read", "skip")
FITS = ("refuse", "wrap", "scale")
ENDINGS = ("", "whole", "too-late", "vanished", "hung", "refused", "interrupted")


@dataclass(frozen=True)
class Mapping:
    """A device of the capture, and the device or file that does its I/Os."""

    source: str
    target: Path


@dataclass(frozen=True)
class Permission:
    """Which targets may be written to, and which of them although they hold data."""

    writes: tuple[Path, ...]
    destroys: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to replay, onto what and how; `speed` is None for as fast as possible."""

    capture: Path
    mappings: tuple[Mapping, ...]
    permission: Permission
    command: tuple[str, ...]
    speed: float | None = 1.0
    loop: str = LOOPS[0]
    think_scale: float = 1.0
    writes: str = WRITES[0]
    data: str = "random"
    fit: str = FITS[0]
    layer: str | None = None
    begin: str | None = None
    end: str | None = None
    where: str | None = None
    depth: int | None = None
    is_realtime: bool = False
    give_up_ns: int = 5_000_000_000
    accepts_losses: bool = False
    output: CaptureName | None = None
    is_forced: bool = False
    is_recorded: bool = True
    is_dry: bool = False
    is_quiet: bool = False
