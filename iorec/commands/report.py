# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec report`."""

from typing import Annotated

import typer

from analyze.errors import IorecError, unknown_name
from analyze.groupings import LAYER_OF_KEY
from iorec.host.signals import interruptible, raising_interrupts
from iorec.host.terminal import output_width
from iorec.options import COUNT, DURATION, Begin, Captures, End, Json, Layer, Verbose, Where
from iorec.waiting import showing_queries

EPILOG = """\b
Examples:
  iorec report run.parquet
  iorec report run.parquet --by device,op --histogram
  iorec report run.parquet --by owner     who wrote, also for kworkers
  iorec report run.parquet --interval 1s --by comm
  iorec report run.parquet --findings     does anything stand out?
  iorec report run.parquet --busy         was the device busy?
  iorec report run.parquet --layer request,bio   where the time of bios went
  iorec report run.parquet --slowest 10 --where "op = 'flush'"
  iorec report run.parquet -b 10 -e 20 --where "latency_ns > 10000000" --json
"""

_MAX_GROUPS_OF_TEXT = 20


def report(
    captures: Captures,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Group by process (the default), thread, pid, tid, comm, cmdline, user, parent,"
            " owner (who wrote, also where a kworker submits), cgroup, charged_cgroup (the"
            " writer's), file, device, partition, above (the stacked device that sent it down), op,"
            " syscall, wait (where a thread is blocked), cause (the call that led to it), flags,"
            " cpu, errno, size, layer, host or capture; by several: --by device,op.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Largest first by a column of the table, as its title or --csv names it: time"
            " (spent in I/O, the default), ios, written, p99, ... With --busy by one of that table:"
            " busy (the default), in-flight, queue-p99, ...",
        ),
    ] = None,
    interval: Annotated[
        int | None,
        typer.Option(
            parser=DURATION,
            metavar="TIME",
            help="Show each interval of this length, without I/Os too: all I/Os of it, or those of"
            " --by.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="Show this many groups, or of each interval so many; by default"
            f" {_MAX_GROUPS_OF_TEXT} in text and else all.",
            show_default=False,
        ),
    ] = None,
    busy: Annotated[
        bool,
        typer.Option(
            "--busy",
            help="Show how busy devices were instead of groups: time with an I/O in flight, I/Os"
            " in flight, time in the queue, size, sequential and repeated reads.",
        ),
    ] = False,
    slowest: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="List the N I/Os that took longest instead of groups of I/Os.",
        ),
    ] = None,
    findings: Annotated[
        bool,
        typer.Option("--findings", help="Say what stands out, and which rows show it."),
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            metavar="ID",
            help="Exit with 3 if something of this id stands out, such as flush-bound.",
        ),
    ] = None,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="Show the latency distribution of each group.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Show these columns of the table beside its keys, such as ios,p99,max. By default"
            " those for which the terminal has room; all if the output is none.",
            show_default=False,
        ),
    ] = None,
    layer: Layer = None,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    verbose: Verbose = False,
) -> str:
    """Sum up who did which I/O, and how long it took."""
    from analyze.capture import open_captures
    from analyze.findings import RULES
    from analyze.render.csv import render_csv
    from analyze.render.json import render_json
    from analyze.render.report import render_text
    from analyze.report import make_report
    from analyze.verdict import format_completeness

    if csv and (json or histogram or findings):
        raise IorecError(
            "--csv goes with none of --json, --histogram and --findings", "use --json", 2
        )
    if columns is not None and (json or csv or findings):
        raise IorecError("--columns is for tables of text", "leave it out", 2)
    has_both = layer is not None and sorted(layer.split(",")) == ["bio", "request"]
    views = {
        "--busy": busy,
        "--slowest": slowest,
        "--layer request,bio": has_both,
        "--findings": findings,
    }
    asked = [view for view, is_asked in views.items() if is_asked]
    if len(asked) > 1:
        raise IorecError(f"{' and '.join(asked)} do not go together", "leave out one", 2)
    if asked and (by or interval or top or histogram or (sort and not busy)):
        raise IorecError(
            f"{asked[0]} shows no groups: no option for groups goes with it",
            "leave out --by, --interval, --sort, --top and --histogram; narrow with --where",
            exit_code=2,
        )
    for rule in fail_on or ():
        if rule not in RULES:
            raise unknown_name("fail on", rule, RULES)
    names = columns.split(",") if columns is not None else []
    default = ["process"] if interval is None else []
    keys = [key for keys in by or default for key in keys.split(",")]
    if layer is None:
        layer = next((LAYER_OF_KEY[key] for key in keys if key in LAYER_OF_KEY), None)
    if top is None and not (json or csv):
        top = _MAX_GROUPS_OF_TEXT
    with (
        raising_interrupts(),
        open_captures(
            captures,
            begin=begin,
            end=end,
            where=where,
            layer=None if has_both else layer,
            counts_progress=True,
        ) as capture,
        interruptible(capture.connection.interrupt),
        showing_queries(capture.connection.query_progress),
    ):
        made = make_report(
            capture,
            keys,
            sort="time" if busy or sort is None else sort,
            top=top,
            histogram=histogram,
            interval_ns=interval,
            slowest=slowest,
            busy=(sort or "busy") if busy else None,
            both_layers=has_both,
            findings=_wants_findings(
                is_asked=findings or json or bool(fail_on),
                is_shown=not (csv or asked),
            ),
        )
    if json:
        text = render_json(made)
    elif csv:
        if not made.completeness.is_complete:
            typer.echo(f"warning: {format_completeness(made.completeness)}", err=True)
        text = render_csv(made)
    else:
        text = render_text(made, output_width(), names, only_findings=findings)
    refused = [finding for finding in made.findings or () if finding.id in (fail_on or ())]
    if refused:
        typer.echo(text, nl=False)
        raise IorecError(
            "; ".join(finding.text for finding in refused), "--fail-on asked for it", exit_code=3
        )
    return text


def _wants_findings(*, is_asked: bool, is_shown: bool) -> bool | None:
    """As make_report takes it."""
    if is_asked:
        return True
    return None if is_shown else False
