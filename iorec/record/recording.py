# SPDX-License-Identifier: GPL-2.0-only
"""Takes attached kernel programs to a finished capture file."""

import gc
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from analyze.capture_name import CaptureName
from analyze.completeness import make_completeness_of
from analyze.errors import IorecError
from analyze.escape import shell_word
from analyze.metadata import Metadata
from analyze.typed_json import SignedInt
from analyze.verdict import format_completeness
from iorec.host.advice import advice
from iorec.host.clock import read_clocks
from iorec.host.memory import keep_freed_memory
from iorec.host.signals import SignalWaiter
from iorec.kernel.probes import Probes, open_probes
from iorec.record.beside import Beside
from iorec.record.output import Output
from iorec.record.prepared import Prepared
from iorec.record.progress import Progress
from iorec.record.recorder import Recorder
from iorec.record.rotation import Rotation, copy_spool, earlier_captures
from iorec.record.segment import Both, Sink
from iorec.record.settings import Settings
from iorec.store.folder import Folder
from iorec.store.origin import Origin
from iorec.store.result import Result
from iorec.store.rows import RowBuilder
from iorec.store.spool import Batch, Spool

if TYPE_CHECKING:
    from iorec.store.convert import Rows

_MOST_INCOMPLETE = 10


def record_and_convert(
    prepared: Prepared, output: Output, also: Callable[[Origin], Sink] | None = None
) -> Result:
    """Record into the spool, write the capture into its folder and remove the spool.

    `also` makes a sink that gets the same.
    """
    settings, signals = prepared.settings, prepared.signals
    rotation = Rotation(
        output.capture,
        output.folder,
        output.part,
        settings.limits.kept_files,
        _replaced(settings, output),
        is_forced=settings.is_forced,
        is_converted=settings.is_converted,
    )
    incomplete: deque[str] = deque(maxlen=_MOST_INCOMPLETE)

    def first_sink(origin: Origin) -> Sink:
        spool = Spool(output.part, origin)
        return spool if also is None else Both(spool, also(origin))

    def next_sink(metadata: Metadata, origin: Origin) -> Sink:
        completeness = make_completeness_of(metadata)
        if not completeness.is_complete:
            incomplete.append(f"{rotation.capture.name}: {format_completeness(completeness)}")
        return Spool(rotation.advance(), origin)

    with prepared.progress:
        recorded = run_recorder(prepared, first_sink, next_sink)
        gc.freeze()  # the names of all that time, which the collector would look through again
        try:
            result = _finish(settings, rotation, prepared.progress, recorded)
        except IorecError:
            if prepared.workload is not None:
                prepared.workload.end(signals)
            raise
        result = replace(
            result,
            earlier=tuple(incomplete),
            kept=rotation.kept,
            spool_bytes=rotation.spool_bytes,
        )
    if prepared.workload is not None:
        result = replace(result, exit_status=prepared.workload.end(signals))
    return result


@dataclass(frozen=True)
class Recorded:
    """The last batch of a recording, and what went wrong, so that it is not in the sink."""

    origin: Origin
    last: Batch | None
    failure: IorecError | None

    @property
    def rows(self) -> "Rows | None":
        """The last batch as rows."""
        return self.last and (RowBuilder(self.origin).build(self.last[0]), self.last[1])


def _no_next(_: object, __: object) -> Sink:
    raise NotImplementedError  # what keeps nothing is never full


def run_recorder(
    prepared: Prepared,
    first_sink: Callable[[Origin], Sink],
    next_sink: Callable[[Metadata, Origin], Sink] = _no_next,
    make_beside: Callable[[Probes, Origin], Beside] | None = None,
) -> Recorded:
    """Records into sinks until the end; `next_sink` is that of Recorder, if one can be full.

    `make_beside` makes what is told of everything, too.
    """
    # Arrow's own allocator keeps what it once had: 330 MiB at the end, against 250.
    pa.set_memory_pool(pa.system_memory_pool())
    keep_freed_memory()
    loaded = prepared.loading.finish(prepared.signals.wait_for)
    with open_probes(prepared.plan, loaded) as probes:
        clock = read_clocks()
        origin = Origin(prepared.names, probes.cpu_count, SignedInt(clock.offset_ns))
        recorder = Recorder(
            prepared,
            probes,
            clock,
            first_sink(origin),
            lambda filled: next_sink(filled, origin),
            make_beside and make_beside(probes, origin),
        )
        prepared.signals.check()
        recorder.begin()
        prepared.announce(probes.has_trace)
        return Recorded(origin, *_run(recorder, prepared.signals))


def _replaced(settings: Settings, output: Output) -> list[str]:
    """What a rotating recording overwrites: all numbered files of its name."""
    if not (settings.limits.is_rotating and settings.is_forced):
        return []
    captures = earlier_captures(output.capture, output.folder)
    return [name for capture in captures for name in capture.files]


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
    progress: Progress,
    recorded: Recorded,
) -> Result:
    """Makes captures of all spools; an error names each one that is left."""
    capture, last, failure = rotation.capture, recorded.rows, recorded.failure
    is_there = rotation.folder.exists(capture.spool)
    if last is not None and failure is None and is_there and not settings.is_converted:
        rotation.finish()
        size = rotation.folder.size_bytes(capture.spool)
        return Result(rotation.folder.path / capture.spool, size, last[1], None)
    failures = [failure] if failure is not None else []
    result = None
    try:
        result = _save(settings, rotation, capture, progress, last, is_whole=failure is None)
    except IorecError as error:
        failures.append(error)
    else:
        failures += _troubles(result, rotation)
    left = rotation.finish()
    if left:
        failures.append(left_spools_error(left, is_forced=settings.is_forced))
    if result is None:
        raise joined_error(failures)
    return replace(result, failure=joined_error(failures) if failures else None)


def _save(
    settings: Settings,
    rotation: Rotation,
    capture: CaptureName,
    progress: Progress,
    last: "Rows | None",
    *,
    is_whole: bool,
) -> Result:
    """Makes a capture of the last spool, in another folder if its own one was deleted."""
    counts = last[1].counts if last else None
    rows = counts.row_count if counts else 0
    # Only now: what it takes to write Parquet is not to delay a start.
    from iorec.store.convert import convert

    cause: Exception = IorecError("no folder has room for it", "free some space")
    for folder in _places(rotation.folder):
        try:
            metadata = convert(
                rotation.part,
                folder,
                capture,
                lambda done: progress.show_conversion(done, rows),
                None if is_whole else last,
                is_forced=settings.is_forced,
            )
            size = folder.size_bytes(capture.name)
            return Result(folder.path / capture.name, size, metadata, None)
        except (IorecError, OSError, pa.ArrowException) as error:
            cause = error
    raise _unsaved(rotation, capture, cause, is_forced=settings.is_forced) from cause


def _places(folder: Folder) -> Iterator[Folder]:
    if not folder.is_deleted:
        yield folder
    if folder.is_deleted:  # perhaps just now
        for other in folder.instead():
            yield other
            other.discard()


def _unsaved(
    rotation: Rotation, capture: CaptureName, cause: Exception, *, is_forced: bool
) -> IorecError:
    """Says where the spool is; one whose name was deleted gets a new one, if there is room."""
    folder = rotation.folder
    message = f"cannot write {folder.path / capture.name}: {cause}"
    spool: Path | None = folder.path / capture.spool
    if not os.fstat(rotation.part.fileno()).st_size:
        folder.remove(capture.spool)
        return IorecError(message, advice(str(cause)))
    if not os.fstat(rotation.part.fileno()).st_nlink:
        spool = next(_copies(rotation.part, folder, capture.spool), None)
    elif not folder.exists(capture.spool):
        spool = Path(f"/proc/self/fd/{rotation.part.fileno()}").readlink()
    if spool is None:
        return IorecError(f"{message}; its spool was deleted, too", "nothing of it is left")
    return IorecError(
        f"{message}; what was recorded is kept in {spool}",
        f"{advice(str(cause))}, then: {_recovery(spool, capture, is_forced=is_forced)}",
    )


def _recovery(spool: Path, capture: CaptureName, *, is_forced: bool) -> str:
    """The command that makes a capture of a spool; under another name where its own is taken."""
    command = f"iorec recover {shell_word(spool)}"
    is_taken = any((spool.parent / name).exists() for name in capture.files)
    if is_taken and is_forced:
        return f"{command} -f"
    if is_taken or spool.name != capture.spool:
        other = spool.with_name(f"{capture.stem}-recovered{capture.suffix}")
        return f"{command} -o {shell_word(other)}"
    return command


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
    folder, spool = rotation.folder, CaptureName(result.path).spool
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


def left_spools_error(spools: dict[Path, str], *, is_forced: bool) -> IorecError:
    """Names the spools that are no captures, why, and how to make them some."""
    causes = "; ".join(dict.fromkeys(spools.values()))
    commands = "; ".join(
        _recovery(spool, CaptureName.of_spool(spool), is_forced=is_forced) for spool in spools
    )
    return IorecError(
        f"cannot make captures of {', '.join(map(str, spools))}: {causes}",
        f"{advice(causes)}, then: {commands}",
    )


def joined_error(failures: list[IorecError]) -> IorecError:
    """All in one; they have the first one's cause."""
    joined = IorecError(
        "; ".join(failure.message for failure in failures),
        "; ".join(dict.fromkeys(failure.hint for failure in failures)),
    )
    joined.__cause__ = failures[0].__cause__
    return joined
