# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec top`."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from iorec.commands.looking import look_on
from iorec.host.terminal import output_width
from iorec.options import (
    COUNT,
    DEFAULT_BUFFER,
    DURATION,
    BufferSize,
    Cgroups,
    Cmdlines,
    Comms,
    Devices,
    Duration,
    Force,
    IncludeSelf,
    MinLatency,
    Ops,
    Pids,
    Quiet,
    RecordedLayers,
    Syscalls,
    Verbose,
)

# How often the recorder sends what there is: a slice is shown so much after its end.
_PERIOD_S = 0.5
_SHORTEST_NS = 100_000_000
_GROUPS_OF_TEXT = 20
_GROUPS_OF_SCREEN = 200

EPILOG = """\b
Examples:
  sudo iorec top                              full screen; ? shows the keys
  sudo iorec top --by file --sort rate -d nvme0n1
  sudo iorec top --batch -n 5 -i 1 --by device
"""


def top(
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Group by process (the default), device, file, cgroup or any other key of iorec"
            " report; by several: --by device,op.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="NUMBER",
            help="Largest first: in-flight (the default), busy, or a number of iorec report such"
            " as iops, rate, p99, max or errors.",
            show_default=False,
        ),
    ] = "in-flight",
    interval: Annotated[
        int,
        typer.Option(
            "-i",
            "--interval",
            parser=DURATION,
            metavar="TIME",
            help="Sum up so long a time; by default 1s.",
            show_default=False,
        ),
    ] = 1_000_000_000,
    batch: Annotated[
        bool, typer.Option("--batch", help="Print a table for each interval, for scripts.")
    ] = False,
    tables: Annotated[
        int | None,
        typer.Option(
            "-n", "--tables", parser=COUNT, metavar="N", help="With --batch: end after N tables."
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            parser=COUNT,
            metavar="N",
            help=f"Show this many groups; by default {_GROUPS_OF_TEXT}, on a full screen"
            f" {_GROUPS_OF_SCREEN}.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Record into this capture at the same time."
        ),
    ] = None,
    force: Force = False,
    duration: Duration = None,
    layer: RecordedLayers = None,
    device: Devices = None,
    pid: Pids = None,
    comm: Comms = None,
    cgroup: Cgroups = None,
    op: Ops = None,
    syscall: Syscalls = None,
    min_latency: MinLatency = None,
    include_self: IncludeSelf = False,
    buffer_size: BufferSize = DEFAULT_BUFFER,
    cmdline: Cmdlines = True,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show who does which I/O just now, and how long it takes, until q or Ctrl-C.

    An I/O counts when it has ended. On the full screen, r begins a capture in the current folder,
    and ends it. Filters are decided in the kernel when an I/O is submitted; each may be repeated.
    """
    from analyze.capture_name import CaptureName
    from analyze.column_names import column_name
    from analyze.errors import IorecError, unknown_name
    from analyze.groupings import ACTIVITY_SORTS, GROUPINGS
    from iorec import __version__
    from iorec.host.privileges import check_privileges
    from iorec.host.terminal import restoring_terminal
    from iorec.live.form import TopForm
    from iorec.live.ready import check_screen
    from iorec.live.requests import request_pair
    from iorec.live.session import View
    from iorec.record.filters import make_filters, resolve_layers, why_lacking
    from iorec.record.settings import Limits, Settings, buffer_bytes

    keys = tuple(key for keys in by or ["process"] for key in keys.split(","))
    for key in keys:
        if key not in GROUPINGS:
            raise unknown_name("group by", key, GROUPINGS)
    sort = column_name(sort)
    if sort not in ACTIVITY_SORTS:
        raise unknown_name("sort by", sort, ACTIVITY_SORTS)
    if interval < _SHORTEST_NS:
        raise IorecError("-i is too short", "give 100ms or more", exit_code=2)
    if tables is not None and not batch:
        raise IorecError("-n is for tables, and a screen is none", "add --batch", exit_code=2)
    if force and output is None:
        raise IorecError("-f is for an output, and there is none", "name it with -o", exit_code=2)
    if not batch:
        check_screen()
    layers = resolve_layers(layer or ["request"])
    settings = Settings(
        output=None if output is None else CaptureName.parse(output),
        is_forced=force,
        layers=layers,
        lacking=why_lacking(layer or []),
        filters=make_filters(
            layers, device, pid, comm, cgroup, op, min_latency, syscall, include_self=include_self
        ),
        limits=Limits(duration_ns=duration),
        buffer_bytes=buffer_bytes(buffer_size),
        command=("iorec", *sys.argv[1:]) if cmdline else ("iorec", "top"),
        version=__version__,
        has_cmdlines=cmdline,
        is_quiet=quiet,
        is_verbose=verbose,
    )
    check_privileges()
    groups = top or (_GROUPS_OF_TEXT if batch else _GROUPS_OF_SCREEN)
    form = TopForm(keys, sort, groups, interval, tables or 0, output_width())
    view = View("iorec.live.tables" if batch else "iorec.live.screen", form, _PERIOD_S)
    with ExitStack() as stack:
        if not batch:
            view = replace(view, is_screen=True)
        if not batch and output is None:
            ours, theirs = map(stack.enter_context, request_pair())
            form = replace(form, requests_fd=theirs.fileno())
            view = replace(view, options=form, fds=(theirs.fileno(),), requests=ours)
        look_on(view, settings, around=restoring_terminal())
