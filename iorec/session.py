"""Takes a recording from an empty folder to a finished capture file."""

import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from analyze.errors import IorecError
from analyze.units import format_bytes
from iorec.convert import convert
from iorec.devices import describe_devices, read_request_capacity
from iorec.filters import Filters, resolve_filters
from iorec.kernel_names import read_kernel_names
from iorec.loader import Plan
from iorec.metadata import Facts
from iorec.output import PART_SUFFIX, Folder, capture_suffix, check_free
from iorec.probes import open_probes
from iorec.recorder import Limits, Recorder
from iorec.records import SLOTS_PER_BUCKET
from iorec.signals import SignalWaiter
from iorec.spool import Metadata, Spool
from iorec.status import StatusLine
from iorec.workload import Workload, invoking_user

# Eight slots for each request that fits into the queues: then eight of them share a bucket of
# eight with a probability below 1e-6. At least 64 Ki, for devices that are added later.
_SLOTS_PER_REQUEST = 8
_FEWEST_SLOTS = 1 << 16

_LARGEST_BUFFER = 1 << 30


@dataclass(frozen=True)
class Settings:
    """What to record, until when and where to."""

    output: Path
    is_forced: bool
    filters: Filters
    limits: Limits
    buffer_bytes: int
    workload: tuple[str, ...]
    command: tuple[str, ...]
    version: str
    is_quiet: bool = False
    is_verbose: bool = False


def buffer_bytes(asked_bytes: int) -> int:
    """The size of a ring buffer with at least that much room: a power of two of whole pages."""
    if not mmap.PAGESIZE <= asked_bytes <= _LARGEST_BUFFER:
        raise IorecError(
            f"a buffer of {format_bytes(asked_bytes)} is out of range",
            f"choose from {format_bytes(mmap.PAGESIZE)} to {format_bytes(_LARGEST_BUFFER)}",
            exit_code=2,
        )
    return 1 << (asked_bytes - 1).bit_length()


@dataclass(frozen=True)
class Result:
    """A finished capture."""

    path: Path
    size_bytes: int
    metadata: Metadata
    exit_status: int | None  # of the workload


def record_session(settings: Settings, announce: Callable[[], None]) -> Result:
    """Records and writes the capture; `announce` is called when recording is about to begin.

    An error before the first row leaves nothing behind. After it the spool is left, and the error
    says how to recover it.
    """
    suffix = capture_suffix(settings.output)
    name = settings.output.name
    part_name = f"{name}{PART_SUFFIX}"
    with Folder.open(settings.output.parent, invoking_user()) as folder:
        check_free(folder, name, is_forced=settings.is_forced)
        _refuse_leftover(folder, part_name)
        with (
            folder.create(part_name) as part,
            StatusLine(settings.limits, is_quiet=settings.is_quiet) as status,
        ):
            fcntl.flock(part, fcntl.LOCK_EX)
            try:
                rows, exit_status = _record(settings, part, status, announce)
                metadata = convert(
                    part, folder, name, suffix, lambda done: status.show_conversion(done, rows)
                )
            except BaseException:
                _keep_or_remove(folder, part_name, part)
                raise
        folder.remove(part_name)
        size = folder.size_bytes(name)
    return Result(settings.output, size, metadata, exit_status)


def _refuse_leftover(folder: Folder, part_name: str) -> None:
    if folder.exists(part_name):
        raise IorecError(
            f"{folder.path / part_name} exists: a recording runs or was interrupted",
            f"finish it with: iorec recover {folder.path / part_name}",
        )


def _record(
    settings: Settings, part: BinaryIO, status: StatusLine, announce: Callable[[], None]
) -> tuple[int, int | None]:
    """The number of rows in the spool and the exit status of the workload."""
    with contextlib.ExitStack() as stack:
        workload = None
        if settings.workload:
            workload = Workload(settings.workload, invoking_user())
            stack.callback(workload.cancel)
        names = read_kernel_names()
        slots = max(_FEWEST_SLOTS, _SLOTS_PER_REQUEST * read_request_capacity())
        probes = stack.enter_context(
            open_probes(
                Plan(
                    resolve_filters(settings.filters, names),
                    settings.buffer_bytes,
                    1 << (slots // SLOTS_PER_BUCKET - 1).bit_length(),
                    settings.is_verbose,
                )
            )
        )
        facts = Facts(
            settings.version,
            settings.command,
            settings.workload,
            settings.filters,
            tuple(describe_devices()),
            settings.buffer_bytes,
        )
        signals = stack.enter_context(SignalWaiter())
        announce()
        recorder = Recorder(
            probes, names, Spool(part), facts, settings.limits, workload, status.show
        )
        metadata = recorder.run(signals)
        counts = metadata["counts"]
        return counts["recorded"] + counts["in_flight_at_stop"], recorder.exit_status


def _keep_or_remove(folder: Folder, part_name: str, part: BinaryIO) -> None:
    if os.fstat(part.fileno()).st_size == 0:
        folder.remove(part_name)
