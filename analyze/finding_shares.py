# SPDX-License-Identifier: GPL-2.0-only
"""Rules that look at who did which I/O, whenever that was."""

from collections import Counter
from collections.abc import Iterator

from analyze.finding import Finding
from analyze.finding_facts import (
    FLUSHING,
    MISALIGNED,
    SMALL_SYNC,
    Facts,
    Share,
    ios_of,
    time_of,
)
from analyze.hosts import name_on
from analyze.ledgers import shown_ledgers
from analyze.metadata import Device
from analyze.row_query import moment
from analyze.sources import CaptureFile
from analyze.stacks import find_levels
from analyze.units import format_bytes, format_count, format_duration, format_percent

# Of fewer I/Os nothing is said.
_LEAST_IOS = 100
_MOST_ORDERED = 100_000  # about so many are looked at in their order


def flush_bound(facts: Facts) -> Iterator[Finding]:
    """Much of a device's time is waiting for flushes of its cache: fsync, or writes with FUA."""
    for device, _, shares in _waited_for(facts):
        flushing_ns = sum(share.flushing_ns for share in shares)
        part = flushing_ns / max(time_of(shares), 1)
        count = sum(share.flushing for share in shares)
        if part < 0.3 or count < _LEAST_IOS:
            continue
        most = max(shares, key=lambda share: share.flushing_ns)
        yield _finding(
            "flush-bound",
            "high" if part >= 0.6 else "medium",
            f"{format_percent(part)} of the time of {device} is waiting for flushes of its cache"
            f" ({format_count(count)}, {format_duration(flushing_ns / count)} each);"
            f" most for {most.process}",
            most,
            part,
            f"{most.device_where} AND {FLUSHING}",
        )


def small_sync_writes(facts: Facts) -> Iterator[Finding]:
    """One process's small writes, each waited for, take most of the time of a device's writes."""
    for device, _, shares in _waited_for(facts):
        writes = [share for share in shares if share.op == "write"]
        for share in writes:
            part = share.small_sync_ns / max(time_of(writes), 1)
            if part >= 0.5 and share.small_sync >= 10 * _LEAST_IOS:
                yield _finding(
                    "small-sync-writes",
                    "medium",
                    f"{share.process} does {format_count(share.small_sync)} synchronous writes of"
                    f" 16 KiB or less to {device}: {format_percent(part)} of its writes' time;"
                    " larger or grouped ones would be fewer",
                    share,
                    part,
                    f"{share.where} AND {SMALL_SYNC}",
                )


def one_at_a_time(facts: Facts) -> Iterator[Finding]:
    """A process never has more than one I/O in flight on a device that takes many at once."""
    for device, described, shares in _waited_for(facts):
        if described is not None and described.rotational:
            continue
        for share in shares:
            is_alone = 0.7 <= share.mean_in_flight <= 1.02
            lasts = (share.last_ns - share.first_ns) / facts.length_ns
            if is_alone and share.ios >= 10 * _LEAST_IOS and lasts >= 0.1 and share.bytes:
                each = format_duration(share.time_ns / share.ios)
                yield _finding(
                    "one-at-a-time",
                    "medium",
                    f"{share.process} does its {format_count(share.ios)} {share.op}s on {device}"
                    f" one after the other, {each} each; {device} could take several at once",
                    share,
                    lasts,
                    share.where,
                )


def scheduler_wait(facts: Facts) -> Iterator[Finding]:
    """Requests of a device wait longer in the queue than in the device."""
    for device, described, shares in _waited_for(facts):
        queue_ns = sum(share.queue_ns for share in shares)
        part = queue_ns / max(time_of(shares), 1)
        if part < 0.5 or ios_of(shares) < _LEAST_IOS:
            continue
        scheduler = described.scheduler if described and described.scheduler else "no"
        yield _finding(
            "queue-wait",
            "high" if part >= 0.7 else "medium",
            f"{format_percent(part)} of the time of {device}'s requests is waiting in the queue,"
            f" before they go to the device ({scheduler} scheduler)",
            shares[0],
            part,
            f"{shares[0].device_where} AND queue_ns > latency_ns / 2",
        )


def errors(facts: Facts) -> Iterator[Finding]:
    """I/Os of a device failed."""
    for device, _, shares in facts.devices:
        count = sum(share.errors for share in shares)
        if count:
            most = max(shares, key=lambda share: share.errors)
            yield _finding(
                "errors",
                "high",
                f"{format_count(count)} of {format_count(ios_of(shares))} I/Os of {device} failed,"
                f" {format_count(most.errors)} of them {most.op} of {most.process}",
                most,
                max(count / ios_of(shares), 0.5),
                f"{most.device_where} AND errno <> 0",
            )


def misaligned(facts: Facts) -> Iterator[Finding]:
    """Many reads or writes do not begin and end at multiples of 4 KiB."""
    for device, _, shares in _waited_for(facts):
        part = sum(share.misaligned for share in shares) / max(ios_of(shares), 1)
        if part < 0.1 or ios_of(shares) < _LEAST_IOS:
            continue
        most = max(shares, key=lambda share: share.misaligned)
        yield _finding(
            "misaligned",
            "medium",
            f"{format_percent(part)} of the I/Os of {device} are not on 4 KiB boundaries,"
            f" {format_count(most.misaligned)} of them {most.op} of {most.process}: a device of"
            " larger blocks reads before it writes them",
            most,
            part,
            f"{most.device_where} AND {MISALIGNED}",
        )


def small_sequential_reads(facts: Facts) -> Iterator[Finding]:
    """A process reads files or a device from front to back in small pieces, without read-ahead."""
    for device, _, shares in _waited_for(facts):
        for share in shares:
            is_small = share.op == "read" and share.mean_bytes <= 32 << 10
            covered = share.bytes / max(share.highest - share.lowest, 1)
            part = share.time_ns / max(time_of(shares), 1)
            is_worth_it = share.ios >= 10 * _LEAST_IOS and part >= 0.05
            is_once = 0.9 <= covered <= 1.1
            if is_small and is_worth_it and is_once and _part_in_order(facts, share) >= 0.9:
                yield _finding(
                    "small-sequential-reads",
                    "low",
                    f"{share.process} reads {format_bytes(share.bytes)} of {device} in a row in"
                    f" pieces of {format_bytes(share.mean_bytes)}: no read-ahead makes them larger",
                    share,
                    part,
                    share.where,
                )


def _part_in_order(facts: Facts, share: Share) -> float:
    """The part of the first I/Os that begin where the one before ended, in the same file.

    Random reads of every block, or of many small files, cover a range once, too.
    """
    length_ns = share.last_ns - share.first_ns
    end_ns = share.first_ns + length_ns * min(_MOST_ORDERED, share.ios) // share.ios
    [(part,)] = facts.capture.sql(
        'SELECT avg(("offset" = expected AND file IS NOT DISTINCT FROM before)::INTEGER) FROM ('
        ' SELECT "offset", file, lag("offset" + bytes) OVER in_time AS expected,'
        " lag(file) OVER in_time AS before FROM io"
        f" WHERE {share.where} AND time <= {moment(end_ns)}"
        ' WINDOW in_time AS (ORDER BY time, "offset")) WHERE expected IS NOT NULL'
    ).fetchall()
    return part or 0.0


def discards(facts: Facts) -> Iterator[Finding]:
    """Discards take a large part of a device's time."""
    for device, _, shares in _waited_for(facts):
        found = [share for share in shares if share.op in ("discard", "secure_erase")]
        part = time_of(found) / max(time_of(shares), 1)
        if part >= 0.2 and ios_of(found) >= _LEAST_IOS:
            yield _finding(
                "discards",
                "medium",
                f"{format_count(ios_of(found))} discards take {format_percent(part)} of the time of"
                f" {device}; most are of {found[0].process}",
                found[0],
                part,
                f"{found[0].device_where} AND op IN ('discard', 'secure_erase')",
            )


def splits(facts: Facts) -> Iterator[Finding]:
    """Many I/Os were larger than their device takes, and were split."""
    for device, count, ios in _events(facts, "splits"):
        text = (
            f"{format_count(count)} I/Os of {device} were larger than it takes (max_sectors_kb) and"
            f" were split; {format_count(ios)} came of them and others"
        )
        yield _of_device("splits", text, facts, device, count / ios)


def requeues(facts: Facts) -> Iterator[Finding]:
    """A driver put many requests back, as the device could not take them."""
    for device, count, ios in _events(facts, "requeues"):
        text = (
            f"requests of {device} were put back {format_count(count)} times, at"
            f" {format_count(ios)} I/Os: the device could not take them when they came"
        )
        yield _of_device("requeues", text, facts, device, count / ios)


def loop_on_file(facts: Facts) -> Iterator[Finding]:
    """A loop device was recorded with the device of its file: each of its I/Os is done twice."""
    shares = {share.device: share for share in reversed(facts.shares)}
    for level in find_levels(facts.capture.files, facts.capture.selection.layer):
        share = shares.get(level.device)
        if share is not None and level.device.rpartition(":")[2].startswith("loop"):
            yield _finding(
                "loop-on-file",
                "high",
                f"{level.device} is a file on {' and '.join(level.below)}: its I/Os are done there,"
                " too, by the kernel's loop threads, and totals count both",
                share,
                0.1,
                share.device_where,
            )


def _waited_for(facts: Facts) -> Iterator[tuple[str, Device | None, list[Share]]]:
    """As Facts.devices, without what devices flush by themselves: an I/O in here waits for that."""
    for device, described, shares in facts.devices:
        waited = [share for share in shares if share.op != "cache_flush"]
        if waited:
            yield device, described, waited


def _events(facts: Facts, kind: str) -> Iterator[tuple[str, int, int]]:
    """Devices at which it happened for a hundredth of the I/Os or more, how often, of how many.

    Only of whole captures: when it happened is not known.
    """
    selection = facts.capture.selection
    if not selection.is_of_all_rows:
        return
    events: Counter[str] = Counter()
    ios: Counter[str] = Counter()
    for file in facts.capture.files:
        for event in file.metadata.counts.events if file.metadata.counts else ():
            events[_name(facts, file, event.device)] += getattr(event, kind)
        for entry in shown_ledgers(file.metadata, selection.layer):
            ios[_name(facts, file, entry.device)] += entry.recorded
    for device, _, _ in facts.devices:
        if events[device] >= _LEAST_IOS and 0 < ios[device] <= 100 * events[device]:
            yield device, events[device], ios[device]


def _name(facts: Facts, file: CaptureFile, device: str | None) -> str:
    name = device or "?"
    return name_on(file.host, name) if facts.capture.has_several_hosts else name


def _of_device(rule: str, text: str, facts: Facts, device: str, weight: float) -> Finding:
    where = facts.device_where(device)
    return Finding(rule, "high", text, device, None, None, min(weight, 1.0), where)


def _finding(
    rule: str, confidence: str, text: str, share: Share, weight: float, where: str
) -> Finding:
    return Finding(
        rule, confidence, text, share.device, share.pid, share.name, min(weight, 1.0), where
    )
