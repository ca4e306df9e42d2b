# SPDX-License-Identifier: GPL-2.0-only
"""Judges how faithfully one capture repeats the I/Os of another one: numbers, limits and a word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analyze.completeness import Completeness
from analyze.replayed import WRITES_LEFT_OUT, QueueSettings, Replay
from analyze.units import format_count, format_counted, format_duration, format_rate

FAITHFUL, USABLE, NOT_COMPARABLE = "faithful", "usable", "not comparable"
WORDS = (FAITHFUL, USABLE, NOT_COMPARABLE)
LATE_NS = 100_000
_MOST_OTHERS = 0.01  # of those asked for: udev reads a device that was opened for writing


@dataclass(frozen=True)
class Percentiles:
    """Of a duration, in nanoseconds."""

    p50_ns: float
    p99_ns: float
    p999_ns: float
    max_ns: float


@dataclass(frozen=True)
class Rule:
    """A number against its limits: `result` is a word, None if it decides nothing."""

    name: str
    value: float | None
    text: str
    faithful_to: float | None
    usable_to: float | None
    result: str | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What two captures say, matched by the nth I/O of the same kind, place and size.

    Times are those of the replay against those asked for; None where the replay kept no times, or
    nothing was matched. `early_ns` is the greatest.
    """

    asked: int
    writes: int  # of them
    writes_read: int  # writes that became reads, as the target is only read
    asked_ns: int  # from the first to the last I/O that was matched
    replayed_ns: int  # the same, as it was
    replayed: int
    matched: int
    lateness: Percentiles | None
    early_ns: int | None
    late_share: float | None  # later, or earlier, than 100 us
    drift_ppm: float | None
    duration_ratio: float | None
    order_kept: float | None  # of neighbours that are far enough apart
    arrival_distance: float | None
    depth_asked: float | None  # mean I/Os in flight
    depth_replayed: float | None
    depth_error: float | None  # mean absolute, as a share of the mean
    errors: int  # of I/Os that had succeeded in the source
    latency_asked: Percentiles | None
    latency_replayed: Percentiles | None


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """The verdict: the worst of its rules; latencies may be compared unless it is the worst."""

    word: str
    source: str
    replayed: str
    is_anchored: bool  # at the replay's own start; else at its earliest I/O
    measured: Measured
    rules: tuple[Rule, ...]
    queue_differences: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def failed(self) -> tuple[Rule, ...]:
        """The rules that cost it the best word."""
        return tuple(rule for rule in self.rules if rule.result not in (None, FAITHFUL))


def judge(
    names: tuple[str, str],
    measured: Measured,
    replay: Replay | None,
    losses: Sequence[Completeness],
    source_digest: str,
) -> Fidelity:
    """Holds the numbers against their limits."""
    is_closed = replay is not None and replay.waiting_threads > 0
    is_timed = replay is None or replay.speed is not None
    matched = _share(measured.matched, measured.asked) or 0.0  # of nothing, too
    rules = [
        _least("matched", matched, 0.999, 0.99, "of the I/Os"),
        *_time_rules(measured, replay, is_closed=is_closed, is_timed=is_timed),
        _most("errors", _share(measured.errors, measured.matched), 0.0, 0.001, "of the I/Os"),
        *_loss_rules(losses),
        *_ending_rules(replay),
    ]
    return Fidelity(
        word=_worst(rules),
        source=names[0],
        replayed=names[1],
        is_anchored=replay is not None,
        measured=measured,
        rules=tuple(rules),
        queue_differences=tuple(_queue_differences(replay)),
        caveats=(
            *_source_caveats(replay, source_digest),
            *_caveats(measured, replay, is_closed=is_closed),
        ),
    )


def judge_own(replay: Replay) -> tuple[str, tuple[str, ...]]:
    """The word and the failed lines by what the loop itself has counted."""
    late = _share(replay.lateness.over_100us, replay.issued)
    rules = [
        _least("done", _share(replay.completed - replay.failed, replay.issued), 1.0, 0.999),
        _most("short", _share(replay.short, replay.completed), 0.0, 0.001, "of the I/Os"),
        *_ending_rules(replay),
    ]
    if replay.speed is not None:
        rules += [_lateness(replay.lateness.p99_ns, None), _late_share(late)]
    failed = tuple(rule.text for rule in rules if rule.result not in (None, FAITHFUL))
    return _worst(rules), failed


def _time_rules(
    measured: Measured, replay: Replay | None, *, is_closed: bool, is_timed: bool
) -> Iterator[Rule]:
    """How well times were kept; of a closed loop how fast it reacted, which it says itself."""
    if not is_timed:
        return
    if is_closed and replay is not None:
        yield _lateness(replay.lateness.p99_ns, measured.latency_asked, what="reaction p99")
        yield _late_share(_share(replay.lateness.over_100us, replay.issued))
    else:
        late = measured.lateness
        yield _lateness(late.p99_ns if late else None, measured.latency_asked)
        yield _late_share(measured.late_share)
        yield _drift(measured)
        yield _ratio(measured.duration_ratio)
        yield _most("arrivals", measured.arrival_distance, 0.05, 0.15, "apart")
    where = "in order within a thread" if is_closed else "in order"
    yield _least("order", measured.order_kept, 0.999, 0.99, where)


def _lateness(
    p99_ns: float | None, latency: Percentiles | None, what: str = "lateness p99"
) -> Rule:
    """100 us as Buttress (FAST 2004) has it, or what is small against the latencies replayed."""
    median_ns = latency.p50_ns if latency else 0
    good, usable = max(LATE_NS, median_ns / 20), max(10 * LATE_NS, median_ns / 2)
    text = f"{what} is {format_duration(p99_ns)} (at most {format_duration(good)})"
    return Rule(what, p99_ns, text, good, usable, _upto(p99_ns, good, usable))


def _drift(measured: Measured) -> Rule:
    """Of a short replay one late I/O makes a slope: what adds up to less than 1 ms is none."""
    span_s = max(measured.asked_ns / 1e9, 1e-9)
    good, usable = max(100, 1000 / span_s), max(1000, 10_000 / span_s)
    return _most("drift", _absolute(measured.drift_ppm), good, usable, "ppm", is_share=False)


def _late_share(share: float | None) -> Rule:
    return _most("late", share, 0.01, 0.05, "of the I/Os are more than 100 µs late")


def _ratio(ratio: float | None) -> Rule:
    off = None if ratio is None else abs(ratio - 1)
    text = f"duration is {'unknown' if ratio is None else f'{ratio:.4f}'} of what was asked (1)"
    return Rule("duration", ratio, text, 0.001, 0.01, _upto(off, 0.001, 0.01))


def _loss_rules(losses: Sequence[Completeness]) -> Iterator[Rule]:
    """What is missing of either capture; a few completions that the kernel hid are usable."""
    for name, found in zip(("source", "replay"), losses, strict=False):
        total = found.recorded + found.lost
        share = 1.0 if found.is_complete is None else _share(found.lost, total)
        if found.is_complete is False and not found.lost:
            share = 1.0
        yield _most(f"losses of the {name}", share, 0.0, 0.001, "of its I/Os")


def _ending_rules(replay: Replay | None) -> Iterator[Rule]:
    if replay is None:
        return
    is_whole = replay.ending == "whole"
    yield Rule(
        "ending",
        None,
        f"the replay ended {replay.ending}",
        None,
        None,
        FAITHFUL if is_whole else NOT_COMPARABLE,
    )
    if replay.short:
        share = _share(replay.short, replay.completed)
        yield _most("short", share, 0.0, 0.001, "of the I/Os moved too little")


def _least(name: str, value: float | None, good: float, usable: float, unit: str = "") -> Rule:
    text = f"{name}: {' '.join([_percent(value), *unit.split()])} (at least {_percent(good)})"
    if value is None:
        return Rule(name, value, text, good, usable, None)
    result = FAITHFUL if value >= good else USABLE if value >= usable else NOT_COMPARABLE
    return Rule(name, value, text, good, usable, result)


def _most(
    name: str, value: float | None, good: float, usable: float, unit: str, *, is_share: bool = True
) -> Rule:
    said, limit = (
        (_percent(value), _percent(good)) if is_share else (f"{value or 0:,.0f}", f"{good:,.0f}")
    )
    text = f"{name}: {said} {unit} (at most {limit})"
    return Rule(name, value, text, good, usable, _upto(value, good, usable))


def _upto(value: float | None, good: float, usable: float) -> str | None:
    if value is None:
        return None
    return FAITHFUL if value <= good else USABLE if value <= usable else NOT_COMPARABLE


def _worst(rules: Sequence[Rule]) -> str:
    return max((rule.result for rule in rules if rule.result), key=WORDS.index, default=FAITHFUL)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _percent(share: float | None) -> str:
    """With as many digits as make it differ from 100 % and 0."""
    if share is None:
        return "unknown"
    text = f"{share * 100:.3f}".rstrip("0").rstrip(".")
    return f"{text} %"


def _queue_differences(replay: Replay | None) -> Iterator[str]:
    """Settings that are known of both queues and differ."""
    for target in replay.targets if replay else ():
        for name in QueueSettings.__dataclass_fields__:
            was: Any = getattr(target.source_queue, name)
            now: Any = getattr(target.queue, name)
            if was is not None and now is not None and was != now:
                yield f"{name} is {now} on {target.target}, was {was} on {target.source}"


def _source_caveats(replay: Replay | None, source_digest: str) -> Iterator[str]:
    if replay is not None and replay.source_digest != source_digest:
        yield f"what was replayed is {replay.source}, whose metadata are not those of the source"


def _caveats(measured: Measured, replay: Replay | None, *, is_closed: bool) -> Iterator[str]:
    """What no number shows."""
    others = measured.replayed - measured.matched - (replay.added if replay else 0)
    if others > _MOST_OTHERS * measured.asked:
        yield f"the target did {format_counted(others, 'I/O')} that nobody asked for meanwhile"
    if replay is None:
        yield "it says nothing of a replay: times count from its earliest I/O"
        return
    if is_closed:
        yield (
            f"closed loop for {format_counted(replay.waiting_threads, 'thread')}: duration, latency"
            " and depth are results; waits across threads, and for anything but I/O, are not known"
        )
    if replay.speed is None:
        rate = measured.matched * 1e9 / max(measured.replayed_ns, 1)
        yield (
            f"done in {format_duration(measured.replayed_ns)} instead of"
            f" {format_duration(measured.asked_ns)}: {format_rate(rate)} IOPS; no I/O"
            " waited for those before it, so latencies are not those of the program"
        )
    if measured.writes_read:
        yield f"{format_counted(measured.writes_read, 'write')} replayed as reads"
    if left_out := replay.left_out.get(WRITES_LEFT_OUT):
        yield f"{format_counted(left_out, 'write')} left out"
    if measured.writes:
        yield f"what was written is {replay.data} data: a capture holds none"
    for target in replay.targets:
        if target.is_written and not target.has_cache:
            yield f"{target.target} has no cache: no flush reaches it, and none is counted"
    if replay.fit == "scale" and replay.moved:
        yield "offsets were scaled: what was sequential is not"
    if replay.fit == "wrap" and replay.moved:
        yield f"{format_count(replay.moved)} I/Os were moved to fit"
