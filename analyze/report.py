# SPDX-License-Identifier: GPL-2.0-only
"""Gathers what `iorec report` shows, in one dataclass for all renderers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.bio_times import BioTime, load_bio_times
from analyze.completeness import Completeness, make_completeness
from analyze.finding import Finding
from analyze.findings import load_findings
from analyze.groups import Group
from analyze.ledgers import shown_ledgers
from analyze.listed_ios import ListedIo, Listing, load_failed, load_in_flight, load_slowest
from analyze.load import Loads, load_loads
from analyze.opened import OpenedRows
from analyze.schema import BLOCK_LAYERS
from analyze.selection import Selection
from analyze.sources import CaptureFile
from analyze.stacks import Level, Stack, find_levels, load_stacks
from analyze.summary import Summary, summarize
from analyze.typed_json import EpochNs
from analyze.verdict import format_completeness

# The rules look at them within two seconds or so.
MOST_IOS_UNASKED = 10_000_000

_ROOT_CGROUPS = {"/", "id:1"}  # the second where nothing of version 2 is mounted


@dataclass(frozen=True)
class Source:
    """A file of the report, where and when it was recorded, and whether it alone is complete."""

    path: Path
    hostname: str
    kernel: str
    started_at: EpochNs
    duration_ns: int
    is_complete: bool | None
    verdict: str


@dataclass(frozen=True)
class Report:
    """Completeness is that of the whole recordings, the rest that of the window and condition."""

    sources: tuple[Source, ...]
    repeats: tuple[Path, ...]  # of files that are among the sources
    origin: EpochNs  # when the first recording started
    selection: Selection
    completeness: Completeness
    summary: Summary
    levels: tuple[Level, ...]
    stacks: tuple[Stack, ...]
    loads: Loads | None  # if they were asked for, as the next one
    slowest: tuple[ListedIo, ...] | None
    bio_times: tuple[BioTime, ...] | None
    in_flight: Listing
    failed: Listing
    findings: tuple[Finding, ...] | None  # None: nobody has looked
    is_too_low: bool  # what is counted here, as some of it is lost
    lacks_cgroups: bool  # the groups are by cgroup, and those of the machine are not in the rows


def make_report(
    capture: OpenedRows,
    by: str | Sequence[str] = "process",
    *,
    sort: str = "time",
    top: int | None = None,
    histogram: bool = False,
    interval_ns: int | None = None,
    slowest: int | None = None,
    busy: str | None = None,
    both_layers: bool = False,
    findings: bool | None = None,
) -> Report:
    """Reads the capture; the options are those of summarize.

    `slowest` says how many I/Os to list, `busy` by what of LOAD_SORTS to sort devices, and
    `both_layers` whether to split the time of bios. `findings` says whether to look for what stands
    out, which takes twice as long as the sums; None: if there are few enough I/Os that nobody
    notices.
    """
    summary = summarize(
        capture, by, sort=sort, top=top, histogram=histogram, interval_ns=interval_ns
    )
    completeness = _completeness(capture, summary)
    if findings is None:
        findings = summary.total.ios <= MOST_IOS_UNASKED
    return Report(
        sources=tuple(map(_make_source, capture.files)),
        repeats=capture.repeats,
        origin=EpochNs(capture.origin_ns),
        selection=capture.selection,
        completeness=completeness,
        summary=summary,
        levels=find_levels(capture.files, capture.selection.layer),
        stacks=load_stacks(capture) if _has_bios(capture) else (),
        loads=load_loads(capture, busy) if busy else None,
        slowest=load_slowest(capture, slowest) if slowest else None,
        bio_times=load_bio_times(capture) if both_layers else None,
        in_flight=load_in_flight(capture, sum(part.in_flight for part in _parts(summary))),
        failed=load_failed(capture, sum(part.errors for part in _parts(summary))),
        findings=load_findings(capture) if findings else None,
        is_too_low=_is_too_low(completeness, capture.selection.layer),
        lacks_cgroups=_lacks_cgroups(capture, summary),
    )


def _is_too_low(completeness: Completeness, layer: str | None) -> bool:
    lost = completeness.lost_by_layer
    shown = lost.keys() & (BLOCK_LAYERS if layer is None else (layer,))
    return any(lost[one] for one in shown) if shown else completeness.lost > 0


def _lacks_cgroups(capture: OpenedRows, summary: Summary) -> bool:
    """Whether all I/Os are of the root cgroup, on a machine whose cgroups are of version 1."""
    found = {group.key["cgroup"] for group in summary.groups if "cgroup" in group.key}
    versions = {file.metadata.cgroup_version for file in capture.files}
    return len(found) == 1 and found <= _ROOT_CGROUPS and versions == {1}


def _make_source(file: CaptureFile) -> Source:
    completeness = make_completeness([file])
    return Source(
        path=file.path,
        hostname=file.metadata.hostname,
        kernel=file.metadata.kernel,
        started_at=file.metadata.started_at,
        duration_ns=file.metadata.stopped_at - file.metadata.started_at,
        is_complete=completeness.is_complete,
        verdict=format_completeness(completeness),
    )


def _completeness(capture: OpenedRows, summary: Summary) -> Completeness:
    """With what the rows tell, if the summary is of all of them."""
    selection = capture.selection
    if not selection.is_of_all_rows:
        return make_completeness(capture.files)
    ledgers = [shown_ledgers(file.metadata, selection.layer) for file in capture.files]
    counted = sum(entry.recorded_bytes for entries in ledgers for entry in entries)
    has_ledgers = all(file.metadata.counts for file in capture.files)
    return make_completeness(
        capture.files,
        failed=sum(part.errors for part in _parts(summary)),
        byte_mismatch=summary.completed_bytes - counted if has_ledgers else None,
    )


def _parts(summary: Summary) -> tuple[Group, ...]:
    """The sums of all rows: I/Os and cache flushes."""
    return (*filter(None, (summary.total, summary.cache_flush_total)),)


def _has_bios(capture: OpenedRows) -> bool:
    return any("bio" in file.metadata.layers for file in capture.files)
