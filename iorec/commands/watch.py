# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec watch`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iorec.commands.looking import look_on
from iorec.host.terminal import output_width
from iorec.options import (
    DEFAULT_BUFFER,
    BufferSize,
    Cgroups,
    Cmdlines,
    Comms,
    Count,
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

# Short for a person who looks, long for the recorder.
_PERIOD_S = 0.2

EPILOG = """\b
Examples:
  sudo iorec watch                               every I/O of the machine, until Ctrl-C
  sudo iorec watch -d nvme0n1 --min-latency 10ms
  sudo iorec watch --json -c postgres | jq .file
"""


def watch(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Record into this capture at the same time."
        ),
    ] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each I/O.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with all columns.")] = False,
    duration: Duration = None,
    count: Count = None,
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
    """Print a line for each I/O as it ends, until Ctrl-C.

    Whoever reads too slowly misses lines, and is told how many; the recorder never waits. Filters
    are decided in the kernel when an I/O is submitted; each may be repeated.
    """
    from analyze.capture_name import CaptureName
    from analyze.errors import IorecError
    from iorec import __version__
    from iorec.host.privileges import check_privileges
    from iorec.live.form import Form
    from iorec.live.session import View
    from iorec.record.filters import make_filters, resolve_layers, why_lacking
    from iorec.record.settings import Limits, Settings, buffer_bytes

    if json and csv:
        raise IorecError("--json and --csv exclude each other", "choose one", exit_code=2)
    if force and output is None:
        raise IorecError("-f is for an output, and there is none", "name it with -o", exit_code=2)
    layers = resolve_layers(layer or ["request"])
    settings = Settings(
        output=None if output is None else CaptureName.parse(output),
        is_forced=force,
        layers=layers,
        lacking=why_lacking(layer or []),
        filters=make_filters(
            layers, device, pid, comm, cgroup, op, min_latency, syscall, include_self=include_self
        ),
        limits=Limits(duration_ns=duration, count=count),
        buffer_bytes=buffer_bytes(buffer_size),
        command=("iorec", *sys.argv[1:]) if cmdline else ("iorec", "watch"),
        version=__version__,
        has_cmdlines=cmdline,
        is_quiet=quiet,
        is_verbose=verbose,
    )
    check_privileges()
    look_on(View("iorec.live.lines", Form(_form(json, csv), output_width()), _PERIOD_S), settings)


def _form(json: bool, csv: bool) -> str:
    return "json" if json else "csv" if csv else "text"
