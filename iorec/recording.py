"""Takes attached kernel programs to a finished capture file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from analyze.errors import IorecError
from iorec.convert import convert
from iorec.file_paths import FilePaths
from iorec.kernel_names import KernelNames
from iorec.loader import Loading
from iorec.metadata import Facts
from iorec.output import PART_SUFFIX, Folder, capture_suffix
from iorec.plan import Plan
from iorec.probes import open_probes
from iorec.recorder import Recorder
from iorec.rotation import Rotation
from iorec.session import Settings
from iorec.signals import SignalWaiter
from iorec.spool import Batch, Metadata, Spool
from iorec.status import StatusLine
from iorec.workload import Workload


@dataclass(frozen=True)
class Result:
    """A finished capture."""

    path: Path
    size_bytes: int
    metadata: Metadata
    exit_status: int | None  # of a workload that ended by itself
    failure: IorecError | None = None  # what ended the recording early

    @property
    def lost(self) -> int:
        """I/Os lost, whatever the cause."""
        return sum(self.metadata["counts"]["lost"].values())


def record_and_convert(
    settings: Settings,
    names: KernelNames,
    plan: Plan,
    loading: Loading,
    paths: FilePaths,
    folder: Folder,
    part: BinaryIO,
    workload: Workload | None,
    announce: Callable[[bool], None],
) -> Result:
    """Records into the spool `part`, writes the capture into `folder` and removes the spool."""
    # Arrow's own allocator keeps what it once had: 330 MiB at the end, against 250.
    pa.set_memory_pool(pa.system_memory_pool())
    limits = settings.limits
    facts = Facts(
        settings.version,
        settings.command,
        settings.workload,
        settings.layers,
        settings.filters,
        settings.buffer_bytes,
    )
    rotation = Rotation(
        settings.output, folder, part, limits.kept_files or 1, is_forced=settings.is_forced
    )
    loaded = loading.finish()
    with StatusLine(limits, is_quiet=settings.is_quiet) as status, SignalWaiter() as signals:
        with open_probes(plan, loaded) as probes:
            recorder = Recorder(
                probes,
                names,
                paths,
                Spool(part),
                facts,
                limits,
                workload,
                status.show if status.is_shown else None,
                lambda: Spool(rotation.advance()),
            )
            recorder.begin()
            announce(probes.has_trace)
            last = recorder.run(signals)
        name = rotation.name if limits.is_rotating else settings.output.name
        metadata = _convert(
            rotation.part,
            folder,
            name,
            status,
            last,
            is_failed=recorder.failure is not None,
            is_forced=settings.is_forced,
        )
        failure = recorder.failure or _failure_to_convert(rotation.finish(), folder)
    exit_status = None
    if workload is not None:
        exit_status = workload.end(is_interrupted=signals.asks_to_stop)
    return Result(folder.path / name, folder.size_bytes(name), metadata, exit_status, failure)


def _failure_to_convert(spools: list[str], folder: Folder) -> IorecError | None:
    if not spools:
        return None
    return IorecError(
        f"cannot make captures of {', '.join(spools)}",
        f"see why with: iorec recover {folder.path / spools[0]}",
    )


def _convert(
    part: BinaryIO,
    folder: Folder,
    name: str,
    status: StatusLine,
    last: Batch,
    *,
    is_failed: bool,
    is_forced: bool,
) -> Metadata:
    counts = last[1]["counts"]
    rows = counts["recorded"] + counts["in_flight_at_stop"]
    spool = folder.path / f"{name}{PART_SUFFIX}"
    try:
        metadata = convert(
            part,
            folder,
            name,
            capture_suffix(Path(name)),
            lambda done: status.show_conversion(done, rows),
            last if is_failed else None,
            is_forced=is_forced,
        )
    except (IorecError, OSError, pa.ArrowException) as error:
        raise IorecError(
            f"cannot write {folder.path / name}: {error}",
            f"{rows} I/Os are kept in {spool}: free some space, then iorec recover {spool}",
        ) from error
    if part.read(1):
        raise IorecError(
            f"the spool reads back only in part, which is in {folder.path / name}",
            f"{spool} is kept: look for errors of the disk",
        )
    folder.remove(spool.name)
    return metadata
