# SPDX-License-Identifier: GPL-2.0-only
"""Says what came of a replay: in its capture's metadata, and as a verdict.

To be imported when privileges are dropped: the analysis starts threads.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.fidelity import Fidelity, judge_own
from analyze.fidelity_measures import compare
from analyze.metadata import Metadata
from analyze.replayed import QueueSettings, Replay, ReplayTarget
from analyze.typed_json import EpochNs
from iorec.host.workload import invoking_user
from iorec.replay.pacing import BATCH
from iorec.replay.planned import PlannedTarget
from iorec.replay.session import Played
from iorec.replay.settings import ENDINGS
from iorec.replay.target import Target
from iorec.store.folder import Folder
from iorec.store.restamp import restamp

_MEMORY_LIMIT = "96MB"


@dataclass(frozen=True)
class Outcome:
    """What a replay came to; `fidelity` is None if nothing was recorded."""

    replay: Replay
    fidelity: Fidelity | None
    capture: Path | None
    warnings: tuple[str, ...]
    failure: IorecError | None  # of the recorder or the feeder


def make_outcome(played: Played) -> Outcome:
    """Judges a replay, and writes the verdict into its capture."""
    replay = _replay(played)
    path = played.recorded
    if path is None:
        word, failed = judge_own(replay)
        replay = replace(replay, verdict=word, failed_lines=failed)
        return Outcome(replay, None, None, played.warnings, played.failure)
    with Folder.open(path.parent, invoking_user()) as folder:
        fidelities: list[Fidelity] = []

        def described(recorded: Metadata) -> Metadata:
            timed = replay
            if recorded.clock is not None:
                # By the clock of the rows, which is that of the start of their recording.
                moment = recorded.clock.start.time_at(played.heard.started_monotonic_ns)
                timed = replace(replay, started_at=moment)
            found = compare(
                played.prepared.settings.capture, path, replay=timed, memory_limit=_MEMORY_LIMIT
            )
            fidelities.append(found)
            lines = tuple(rule.text for rule in found.failed)
            judged = replace(timed, verdict=found.word, failed_lines=lines)
            command = played.prepared.settings.command
            return replace(recorded, workload=None, command=command, replay=judged)

        metadata = restamp(folder, CaptureName(path), described)
    assert metadata.replay is not None
    is_kept = played.prepared.settings.output is not None
    kept = path if is_kept else None
    if kept is None:  # its name is that of a file that is about to go
        fidelities[0] = replace(fidelities[0], replayed="the replay")
    return Outcome(metadata.replay, fidelities[0], kept, played.warnings, played.failure)


def _replay(played: Played) -> Replay:
    """What is known without a capture of it."""
    prepared, pacing = played.prepared, played.pacing
    heard = played.heard
    settings, plan, pace = prepared.settings, prepared.plan, pacing.pace
    loop = settings.loop if settings.speed is not None else "open"
    return Replay(
        source=str(settings.capture),
        source_digest=plan.source_digest,
        targets=tuple(
            _target(target, planned)
            for target, planned in zip(prepared.targets, plan.targets, strict=True)
        ),
        started_at=EpochNs(heard.started_monotonic_ns + heard.wall_offset_ns),
        first_at=EpochNs(plan.first_ns),
        loop=loop,
        waiting_threads=plan.waiting_threads,
        other_threads=plan.other_threads,
        speed=settings.speed,
        think_scale=settings.think_scale,
        writes=settings.writes,
        data=settings.data,
        fit=settings.fit,
        layer=settings.layer,
        begin_s=plan.begin_s,
        end_s=plan.end_s,
        where=settings.where,
        planned=plan.ios,
        planned_bytes=plan.bytes,
        left_out=plan.left_out,
        moved=plan.moved,
        issued=pace.issued,
        added=pace.added,
        completed=pace.ended,
        failed=pace.failed,
        errors=pacing.counted_errors(),
        short=pace.short_count,
        ending=ENDINGS[heard.ending],
        engine=prepared.engine,
        pacer=prepared.pacer,
        ring_flags=prepared.ring_flags,
        policy="fifo" if settings.is_realtime else "other",
        depth=pace.depth,
        most_in_flight=pace.most_in_flight,
        batch=BATCH,
        lateness=pacing.counted_lateness(),
        starved_ns=pace.starved_ns,
        verdict=None,
        failed_lines=(),
    )


def _target(target: Target, planned: PlannedTarget) -> ReplayTarget:
    largest_kb = target.largest_kb if target.has_requests else None
    return ReplayTarget(
        source=target.source,
        target=target.name,
        model=target.model,
        serial=target.serial,
        size_bytes=target.size_bytes or planned.file_bytes,
        source_size_bytes=planned.source_size_bytes,
        largest_bytes=None if largest_kb is None else largest_kb << 10,
        is_written=target.is_written,
        source_queue=QueueSettings(
            scheduler=planned.source_scheduler,
            nr_requests=planned.source_nr_requests,
            logical_block_size=planned.source_block_size,
        ),
        queue=target.queue,
        largest_discard_bytes=target.largest_discard_bytes,
        largest_zeroes_bytes=target.largest_zeroes_bytes,
    )
