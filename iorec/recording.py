"""Takes attached kernel programs to a finished capture file."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from analyze.completeness import make_completeness_of
from analyze.errors import IorecError
from analyze.metadata import parse_metadata
from analyze.verdict import format_completeness
from iorec.convert import convert
from iorec.device_watch import DeviceWatch
from iorec.file_paths import FilePaths
from iorec.kernel_names import KernelNames
from iorec.loader import Loading
from iorec.metadata import Facts
from iorec.metadata_json import Metadata, to_json
from iorec.output import PART_SUFFIX, Folder, advice, capture_suffix
from iorec.plan import Plan
from iorec.probes import open_probes
from iorec.recorder import Recorder
from iorec.rotation import Rotation, copy_spool
from iorec.session import Settings
from iorec.signals import SignalWaiter
from iorec.spool import Batch, Spool
from iorec.status import StatusLine
from iorec.workload import Workload

_MOST_INCOMPLETE = 10


@dataclass(frozen=True)
class Result:
    """A finished capture."""

    path: Path
    size_bytes: int
    metadata: Metadata
    exit_status: int | None  # of a workload that ended by itself
    failure: IorecError | None = None  # what ended the recording early
    earlier: tuple[str, ...] = ()  # of the files before it, the last that are incomplete, and why

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
    devices: DeviceWatch,
    folder: Folder,
    part: BinaryIO,
    workload: Workload | None,
    signals: SignalWaiter,
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
    incomplete: deque[str] = deque(maxlen=_MOST_INCOMPLETE)

    def next_spool(metadata: Metadata) -> Spool:
        completeness = make_completeness_of(parse_metadata(to_json(metadata)))
        if not completeness.is_complete:
            incomplete.append(f"{rotation.name}: {format_completeness(completeness)}")
        return Spool(rotation.advance())

    loaded = loading.finish(signals)
    with StatusLine(limits, settings.filters, is_quiet=settings.is_quiet) as status:
        with open_probes(plan, loaded) as probes:
            recorder = Recorder(
                probes,
                names,
                paths,
                devices,
                Spool(part),
                facts,
                limits,
                workload,
                status.show if status.is_wanted else None,
                next_spool,
            )
            signals.check()
            recorder.begin()
            announce(probes.has_trace)
            last, failure = _run(recorder, signals)
        result = _finish(settings, rotation, status, last, failure)
        result = replace(result, earlier=tuple(incomplete))
    if workload is not None:
        result = replace(result, exit_status=workload.end(signals))
    return result


def _run(recorder: Recorder, signals: SignalWaiter) -> tuple[Batch | None, IorecError | None]:
    """Records; returns the last batch, and what went wrong, so that it is not in the spool."""
    try:
        return recorder.run(signals), recorder.failure
    except Exception as error:
        # No defect may cost what was recorded until then.
        failure = IorecError(
            f"the recording ended early: unexpected {type(error).__name__}: {error}",
            "this is a defect of iorec: run it again with -v and report what it prints",
        )
        failure.__cause__ = error
        return None, failure


def _finish(
    settings: Settings,
    rotation: Rotation,
    status: StatusLine,
    last: Batch | None,
    failure: IorecError | None,
) -> Result:
    """Makes captures of all spools; an error names each one that is left."""
    failures = [failure] if failure is not None else []
    result = None
    try:
        result = _save(settings, rotation, status, last, is_whole=failure is None)
    except IorecError as error:
        failures.append(error)
    else:
        failures += _troubles(result, rotation)
    left = rotation.finish()
    if left:
        failures.append(_left(left))
    if result is None:
        raise _joined(failures)
    return replace(result, failure=_joined(failures) if failures else None)


def _save(
    settings: Settings,
    rotation: Rotation,
    status: StatusLine,
    last: Batch | None,
    *,
    is_whole: bool,
) -> Result:
    """Makes a capture of the last spool, in another folder if its own one was deleted."""
    name = rotation.name if settings.limits.is_rotating else settings.output.name
    counts = last[1]["counts"] if last else {"recorded": 0, "in_flight_at_stop": 0}
    rows = counts["recorded"] + counts["in_flight_at_stop"]
    cause: Exception = IorecError("no folder has room for it", "free some space")
    for folder in _places(rotation.folder):
        try:
            metadata = convert(
                rotation.part,
                folder,
                name,
                capture_suffix(Path(name)),
                lambda done: status.show_conversion(done, rows),
                None if is_whole else last,
                is_forced=settings.is_forced,
            )
            return Result(folder.path / name, folder.size_bytes(name), metadata, None)
        except (IorecError, OSError, pa.ArrowException) as error:
            cause = error
    raise _unsaved(rotation, name, cause) from cause


def _places(folder: Folder) -> Iterator[Folder]:
    if not folder.is_deleted:
        yield folder
    if folder.is_deleted:  # perhaps just now
        for other in folder.instead():
            yield other
            other.discard()


def _unsaved(rotation: Rotation, name: str, cause: Exception) -> IorecError:
    """Says where the spool is; one whose name was deleted gets a new one, if there is room."""
    folder, part_name = rotation.folder, f"{name}{PART_SUFFIX}"
    message = f"cannot write {folder.path / name}: {cause}"
    spool: Path | None = folder.path / part_name
    if not os.fstat(rotation.part.fileno()).st_size:
        folder.remove(part_name)
        return IorecError(message, advice(str(cause)))
    if not os.fstat(rotation.part.fileno()).st_nlink:
        spool = next(_copies(rotation.part, folder, part_name), None)
    elif not folder.exists(part_name):
        spool = Path(f"/proc/self/fd/{rotation.part.fileno()}").readlink()
    if spool is None:
        return IorecError(f"{message}; its spool was deleted, too", "nothing of it is left")
    return IorecError(
        f"{message}; what was recorded is kept in {spool}",
        f"{advice(str(cause))}, then: iorec recover {spool}",
    )


def _copies(part: BinaryIO, folder: Folder, name: str) -> Iterator[Path]:
    for other in itertools.chain([folder], folder.instead()):
        try:
            copy_spool(part, other, name)
        except (IorecError, OSError):
            continue
        yield other.path / name


def _troubles(result: Result, rotation: Rotation) -> list[IorecError]:
    """What the user has to know of a capture that was written; removes its spool else."""
    troubles = []
    folder, spool = rotation.folder, f"{result.path.name}{PART_SUFFIX}"
    if rotation.part.read(1):
        troubles.append(
            IorecError(
                f"the spool reads back only in part, which is in {result.path}",
                f"{folder.path / spool} is kept: look for errors of the disk",
            )
        )
    else:
        folder.remove(spool)
    if rotation.first_folder.is_deleted:
        troubles.append(
            IorecError(
                f"the folder {rotation.first_folder.path} was deleted while recording",
                f"what was recorded since is in {result.path.parent}",
            )
        )
    return troubles


def _left(spools: dict[Path, str]) -> IorecError:
    causes = "; ".join(dict.fromkeys(spools.values()))
    commands = "; ".join(f"iorec recover {spool}" for spool in spools)
    return IorecError(
        f"cannot make captures of {', '.join(map(str, spools))}: {causes}",
        f"{advice(causes)}, then: {commands}",
    )


def _joined(failures: list[IorecError]) -> IorecError:
    """All in one; they have the first one's cause."""
    joined = IorecError(
        "; ".join(failure.message for failure in failures),
        "; ".join(dict.fromkeys(failure.hint for failure in failures)),
    )
    joined.__cause__ = failures[0].__cause__
    return joined
