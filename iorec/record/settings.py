# SPDX-License-Identifier: GPL-2.0-only
"""Says what to record, until when and where to."""

import mmap
from dataclasses import dataclass
from pathlib import Path

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.metadata import Filters
from analyze.units import format_bytes
from iorec.kernel.layers import layers_of
from iorec.record.triggers import Trigger

_LARGEST_BUFFER = 1 << 30


@dataclass(frozen=True)
class Limits:
    """When to stop by itself; None: never."""

    duration_ns: int | None = None
    count: int | None = None
    max_size_bytes: int | None = None
    kept_files: int | None = None  # go on in a new file at the greatest size; keep the newest ones

    @property
    def is_rotating(self) -> bool:
        """Whether the greatest size begins a new file instead of ending the recording."""
        return self.kept_files is not None


@dataclass(frozen=True)
class FlightPlan:
    """What a flight recorder keeps: so much before and after a trigger, in the newest captures.

    After one there is a pause.
    """

    window_ns: int
    after_ns: int
    triggers: tuple[Trigger, ...]
    kept: int
    pause_ns: int


@dataclass(frozen=True)
class Settings:
    """What to record, until when and where to."""

    layers: tuple[str, ...]
    filters: Filters
    buffer_bytes: int
    command: tuple[str, ...]
    version: str
    output: CaptureName | None = None  # None: nothing is kept
    is_forced: bool = False
    limits: Limits = Limits()
    workload: tuple[str, ...] = ()
    has_cmdlines: bool = True
    is_converted: bool = True  # or the spool is left for `iorec recover`
    flight: FlightPlan | None = None
    lacking: tuple[str, ...] = ()  # why layers that were asked for by `all` are not recorded
    is_quiet: bool = False
    is_verbose: bool = False

    @property
    def has_block_layer(self) -> bool:
        """Whether I/Os of disks are recorded."""
        return any(layer.is_block for layer in layers_of(self.layers))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that are written to."""
        return () if self.output is None else (self.output.path.parent,)


def buffer_bytes(asked_bytes: int) -> int:
    """The size of a ring buffer with at least that much room: a power of two of whole pages."""
    if not mmap.PAGESIZE <= asked_bytes <= _LARGEST_BUFFER:
        raise IorecError(
            f"a buffer of {format_bytes(asked_bytes)} is out of range",
            f"choose from {format_bytes(mmap.PAGESIZE)} to {format_bytes(_LARGEST_BUFFER)}",
            exit_code=2,
        )
    return 1 << (asked_bytes - 1).bit_length()
