# SPDX-License-Identifier: GPL-2.0-only
"""Words what a finished recording is worth.

To be imported when privileges are dropped: the analysis starts threads, and each would keep them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.capture_name import SPOOL_SUFFIX
from analyze.completeness import Completeness, make_completeness_of
from analyze.escape import escape_for_terminal, shell_word
from analyze.ledgers import only_layer, shown_ledgers
from analyze.metadata import Metadata
from analyze.units import format_bytes, format_count, format_duration
from analyze.verdict import advise, format_completeness, format_failed, format_recorded
from iorec.host.signals import interruptible, raising_interrupts
from iorec.host.terminal import output_width
from iorec.messages import format_unmatched, say
from iorec.store.result import Result
from iorec.waiting import showing_queries

_MOST_NAMED = 3
_MOST_SUMMED_UP = 10_000_000  # I/Os, which take some seconds


def say_end(result: Result, *, is_quiet: bool) -> "Verdict":
    """Prints how a recording ended, what is in its capture, and what to warn of; judges it."""
    found = verdict(result.metadata, result.earlier)
    say(format_end(result), is_quiet=is_quiet)
    # CSV takes too long to read: ten times as long, and compressed twenty times.
    counts = result.metadata.counts
    is_short = counts is not None and counts.recorded <= _MOST_SUMMED_UP
    is_readable = result.failure is None and result.path.suffix == ".parquet"
    if is_readable and is_short and not is_quiet:
        for line in summary_lines(result.path, output_width(sys.stderr)):
            say(line, is_quiet=False)
    for line in found.warnings:
        say(line, is_quiet=False)
    return found


def format_end(result: Result) -> str:
    """What was recorded, what was lost, and the next command."""
    last_file, last = ("the last file: ", "the last ") if result.kept else ("", "")
    return "\n".join(
        (
            f"{last_file}{format_recording(result.metadata)}",
            f"{_files(result)} ({last}{format_bytes(result.size_bytes)})",
            f"next: iorec {_next_command(result.path)} {shell_word(result.path)}",
        )
    )


def say_live_end(metadata: Metadata | None, *, is_quiet: bool) -> "Verdict | None":
    """The same of a recording of which nothing was kept, or not all."""
    if metadata is None:
        return None
    found = verdict(metadata)
    say(format_recording(metadata), is_quiet=is_quiet)
    for line in found.warnings:
        say(line, is_quiet=False)
    return found


def format_recording(metadata: Metadata) -> str:
    """What was recorded, and what was lost.

    Bytes are those of what a report shows, as two layers see the same I/O; no data move in a
    discard.
    """
    completeness = make_completeness_of(metadata)
    duration = format_duration(metadata.duration_s * 1e9)
    entries = [
        entry for entry in shown_ledgers(metadata, only_layer([metadata])) if entry.op != "discard"
    ]
    size = format_bytes(sum(entry.recorded_bytes for entry in entries))
    lost = f"{_lost(completeness)}{format_failed(completeness)}"
    return f"{format_recorded(completeness)}, {size} in {duration}; {lost}"


def _files(result: Result) -> str:
    """All that a rotating recording has kept, or how many and from which to which."""
    *before, last = (escape_for_terminal(str(path)) for path in (*result.kept, result.path))
    if len(before) > _MOST_NAMED:
        return f"{len(before) + 1} files, {before[0]} to {last}"
    return ", ".join([*before, last])


def _lost(completeness: Completeness) -> str:
    """Nothing is called lost only where nothing else is missing, which the verdict then names."""
    is_complete = completeness.is_complete or completeness.lost
    return f"{format_count(completeness.lost)} lost" if is_complete else "incomplete"


def summary_lines(path: Path, width: int) -> list[str]:
    """What is in a finished capture; whatever goes wrong here, the recording went well."""
    # Only now: DuckDB takes a fifth of a second, and nobody waits for it before the end is said.
    from analyze.capture import open_captures
    from analyze.highlights import load_highlights
    from analyze.render.highlights import highlight_lines

    try:
        with (
            raising_interrupts(),
            open_captures([path], counts_progress=True) as capture,
            interruptible(capture.connection.interrupt),
            showing_queries(capture.connection.query_progress),
        ):
            highlights = load_highlights(capture)
    except KeyboardInterrupt:
        return []
    except Exception as error:
        return [f"no summary: {escape_for_terminal(str(error))}"]
    return highlight_lines(highlights, width) if highlights else []


def _next_command(path: Path) -> str:
    return "recover" if path.suffix == SPOOL_SUFFIX else "report"


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a finished capture, however quiet the recording was asked to be."""

    is_complete: bool
    message: str
    warnings: tuple[str, ...]
    hint: str  # what would have helped


def verdict(metadata: Metadata, earlier: Sequence[str] = ()) -> Verdict:
    """Judges whether the capture, and those before it, hold every I/O asked for, and why not.

    `earlier` says it of those before it that do not.
    """
    completeness, counts = make_completeness_of(metadata), metadata.counts
    message, advice = format_completeness(completeness), advise(completeness)
    warnings = [*earlier]
    if not completeness.is_complete:
        warnings += [message, *advice]
    elif earlier:
        message = earlier[-1]
    if counts is not None:
        unmatched = format_unmatched(metadata.filters, counts.row_count, counts.filtered)
        warnings.append(unmatched)
    return Verdict(
        is_complete=bool(completeness.is_complete) and not earlier,
        message=message,
        warnings=tuple(f"warning: {line}" for line in warnings if line),
        hint=advice[0] if advice else "see what iorec report says of it",
    )
