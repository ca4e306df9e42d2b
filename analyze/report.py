"""Gathers what `iorec report` shows, in one dataclass for all renderers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.capture import Capture
from analyze.completeness import Completeness
from analyze.selection import Selection
from analyze.stacks import Stack, load_stacks
from analyze.summary import Summary
from analyze.troubles import Troubles, load_failed, load_in_flight
from analyze.typed_json import EpochNs


@dataclass(frozen=True)
class Source:
    """A file of the report, and where and when it was recorded."""

    path: Path
    hostname: str
    kernel: str
    started_at: EpochNs
    duration_ns: int


@dataclass(frozen=True)
class Report:
    """Completeness is that of the whole recordings, the rest that of the window and condition."""

    sources: tuple[Source, ...]
    origin: EpochNs  # when the first recording started
    selection: Selection
    completeness: Completeness
    summary: Summary
    stacks: tuple[Stack, ...]
    in_flight: Troubles
    failed: Troubles


def make_report(
    capture: Capture,
    by: Sequence[str] = ("process",),
    *,
    sort: str = "time",
    top: int | None = None,
    histogram: bool = False,
) -> Report:
    """Reads the capture; the options are those of analyze.summary.summarize."""
    summary = capture.summary(by, sort=sort, top=top, histogram=histogram)
    return Report(
        sources=tuple(
            Source(
                path=file.path,
                hostname=file.metadata.hostname,
                kernel=file.metadata.kernel,
                started_at=file.metadata.started_at,
                duration_ns=file.metadata.stopped_at - file.metadata.started_at,
            )
            for file in capture.files
        ),
        origin=EpochNs(capture.origin_ns),
        selection=capture.selection,
        completeness=capture.completeness(),
        summary=summary,
        stacks=load_stacks(capture) if _has_bios(capture) else (),
        in_flight=load_in_flight(capture, summary.total.in_flight),
        failed=load_failed(capture, summary.total.errors),
    )


def _has_bios(capture: Capture) -> bool:
    return any("bio" in file.metadata.layers for file in capture.files)
