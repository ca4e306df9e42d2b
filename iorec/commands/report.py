# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec report`."""

import shutil
from typing import Annotated

import typer

from analyze.errors import IorecError
from iorec.host.signals import interruptible, raising_interrupts
from iorec.options import COUNT, Begin, Captures, End, Json, Layer, Verbose, Where

EPILOG = """\b
Examples:
  iorec report run.parquet
  iorec report run.parquet --by device,op --histogram
  iorec report run.parquet --by owner     who wrote, also for kworkers
  iorec report run.parquet -b 10 -e 20 --where "latency_ns > 10000000" --json
"""

_MAX_GROUPS_OF_TEXT = 20


def report(
    captures: Captures,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Group by process (the default), pid, tid, comm, owner (who wrote, also where a"
            " kworker submits), cgroup, file, device, partition, above (the stacked device that"
            " sent it down), op, flags, cpu, errno, size, layer, host or capture (the file); by"
            " several: --by device,op.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Largest first: time (spent in I/O), ios, reads, writes, bytes, errors, avg, p50,"
            " p95, p99, p999 or max.",
        ),
    ] = "time",
    top: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help=f"Show this many groups; by default {_MAX_GROUPS_OF_TEXT} in text and else all.",
            show_default=False,
        ),
    ] = None,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="Show the latency distribution of each group.")
    ] = False,
    layer: Layer = None,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
    verbose: Verbose = False,
) -> str:
    """Sum up who did which I/O, and how long it took."""
    from analyze.capture import open_captures
    from analyze.render.csv import render_csv
    from analyze.render.json import render_json
    from analyze.render.report import render_text
    from analyze.report import make_report
    from analyze.verdict import format_completeness

    if csv and (json or histogram):
        raise IorecError("--csv goes with neither --json nor --histogram", "use --json", 2)
    keys = [key for keys in by or ["process"] for key in keys.split(",")]
    if top is None and not (json or csv):
        top = _MAX_GROUPS_OF_TEXT
    with (
        raising_interrupts(),
        open_captures(captures, begin=begin, end=end, where=where, layer=layer) as capture,
        interruptible(capture.connection.interrupt),
    ):
        made = make_report(capture, keys, sort=sort, top=top, histogram=histogram)
    if json:
        return render_json(made)
    if not csv:
        return render_text(made, shutil.get_terminal_size().columns)
    if not made.completeness.is_complete:
        typer.echo(f"warning: {format_completeness(made.completeness)}", err=True)
    return render_csv(made)
