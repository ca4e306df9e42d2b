# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec record`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from analyze.units import SIZE_FORMS, format_bytes
from iorec.options import (
    COUNT,
    DEFAULT_BUFFER,
    DURATION,
    SIZE,
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
from iorec.record.triggers import TRIGGER_FORMS

if TYPE_CHECKING:
    from analyze.capture_name import CaptureName
    from iorec.record.settings import FlightPlan, Settings

_LEAST_MAX_SIZE = 64 << 10  # the metadata, which each batch has, take 5 KiB and more

_AFTER_NS, _PAUSE_NS = 10_000_000_000, 60_000_000_000
_KEPT = 10

EPILOG = """\b
Examples:
  sudo iorec record -o run.parquet                  until Ctrl-C
  sudo iorec record -d nvme0n1 --op write --duration 30s
  sudo iorec record -o fio.parquet -- fio job.fio   until fio ends
  sudo iorec record -l bio -d zram0                 a device without requests
  sudo iorec record --flight 30s --trigger 'latency > 100ms' --trigger errno
"""


def record(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND", help="Record until this command ends.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The capture: .parquet, .csv or .csv.gz; by default iorec-HOST-TIME.parquet.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    duration: Duration = None,
    count: Count = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            parser=SIZE,
            metavar="SIZE",
            help=f"Stop when the file has this size, 64K or more: {SIZE_FORMS}.",
        ),
    ] = None,
    rotate: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="At --max-size go on in a new file, NAME-00001.parquet and so on; keep the"
            " newest N. With -f, all such files of before are replaced.",
        ),
    ] = None,
    flight: Annotated[
        int | None,
        typer.Option(
            parser=DURATION,
            metavar="TIME",
            help="Keep the last I/Os in memory, and write them when a trigger fires or at SIGUSR1.",
        ),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help=f"When --flight writes a capture: {TRIGGER_FORMS}.",
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            parser=DURATION,
            metavar="TIME",
            help="How much of what follows a trigger is written; by default 10s.",
        ),
    ] = None,
    captures: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="How many captures of --flight stay, the newest; by default 10.",
        ),
    ] = None,
    pause: Annotated[
        int | None,
        typer.Option(
            parser=DURATION,
            metavar="TIME",
            help="How long no trigger fires after a capture; by default 1m.",
        ),
    ] = None,
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
    convert_later: Annotated[
        bool,
        typer.Option("--convert-later", help="Leave the .part file to iorec recover."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if any I/O was lost.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Record every block I/O of the machine to a file.

    The layer request is what goes to the disks; bio is what is asked of every block device, also
    of those without requests (device-mapper, md, zram). Filters are decided in the kernel when an
    I/O is submitted; each may be repeated.
    """
    from analyze.capture_name import CaptureName
    from analyze.errors import IorecError
    from iorec import __version__
    from iorec.host.privileges import check_privileges
    from iorec.messages import (
        find_recorded_disk,
        format_leftovers,
        format_own_writes,
        format_start,
        say,
    )
    from iorec.record.filters import make_filters, resolve_layers, why_lacking
    from iorec.record.output import default_output
    from iorec.record.session import record_session
    from iorec.record.settings import Limits, Settings, buffer_bytes
    from iorec.status import StatusLine

    if max_size is not None and max_size < _LEAST_MAX_SIZE:
        raise IorecError(
            f"--max-size of {format_bytes(max_size)} is less than a batch of I/Os takes",
            f"give {format_bytes(_LEAST_MAX_SIZE)} or more",
            exit_code=2,
        )
    if rotate is not None and max_size is None:
        raise IorecError("--rotate needs --max-size", "say how large a file may be", exit_code=2)
    # Each capture of --flight has a time of its own in its name.
    default = default_output(Path(), has_time=flight is None)
    capture = CaptureName.parse(output) if output else default
    layers = resolve_layers(layer or ["request"])
    settings = Settings(
        output=capture,
        is_forced=force,
        layers=layers,
        lacking=why_lacking(layer or []),
        filters=make_filters(
            layers, device, pid, comm, cgroup, op, min_latency, syscall, include_self=include_self
        ),
        limits=Limits(
            duration_ns=duration,
            count=count,
            max_size_bytes=max_size,
            kept_files=rotate,
        ),
        buffer_bytes=buffer_bytes(buffer_size),
        workload=tuple(command or ()),
        command=("iorec", *sys.argv[1:]) if cmdline else ("iorec", "record"),
        version=__version__,
        has_cmdlines=cmdline,
        is_converted=not convert_later,
        is_quiet=quiet,
        is_verbose=verbose,
    )
    flight_plan = _flight_plan(flight, trigger, after, captures, pause)
    if flight_plan is not None:
        for name, value in (
            ("--rotate", rotate),
            ("--convert-later", convert_later),
            ("-f", force),
        ):
            if value:
                raise IorecError(f"--flight and {name} exclude each other", "choose one", 2)
    check_privileges()
    for line in format_leftovers(capture.path.parent):
        typer.echo(line, err=True)
    if flight_plan is not None:
        _fly(flight_plan, capture, settings, is_strict=strict)
    # Now, while this process may look everywhere.
    own_disk = None
    if settings.has_block_layer:
        own_disk = find_recorded_disk(capture.path.parent, settings.filters.resolved_device)
    result = record_session(
        capture,
        settings,
        StatusLine(settings.limits, settings.filters, is_quiet=quiet),
        lambda has_trace: say(format_start(settings, has_trace=has_trace), is_quiet=quiet),
    )
    # Only now: see its docstring.
    from iorec.outcome import say_end

    found = say_end(result, is_quiet=quiet)
    if own_disk is not None:
        typer.echo(format_own_writes(result.path, own_disk, result.spool_bytes), err=True)
    if result.failure is not None:
        raise result.failure
    if strict and not found.is_complete:
        raise IorecError(found.message, found.hint, exit_code=3)
    raise typer.Exit(result.exit_status or 0)


def _flight_plan(
    window_ns: int | None,
    triggers: list[str] | None,
    after_ns: int | None,
    kept: int | None,
    pause_ns: int | None,
) -> "FlightPlan | None":
    """What options say of the flight recorder; None without --flight."""
    from analyze.errors import IorecError
    from iorec.record.settings import FlightPlan
    from iorec.record.triggers import check_triggers, parse_trigger

    if window_ns is None:
        named = {
            "--trigger": triggers,
            "--after": after_ns,
            "--captures": kept,
            "--pause": pause_ns,
        }
        for name, value in named.items():
            if value is not None:
                raise IorecError(f"{name} needs --flight", "say how much to keep: --flight 30s", 2)
        return None
    if window_ns == 0:
        raise IorecError("--flight keeps nothing", "say how much to keep: --flight 30s", 2)
    parsed = tuple(map(parse_trigger, triggers or ()))
    check_triggers(parsed)
    return FlightPlan(
        window_ns,
        _AFTER_NS if after_ns is None else after_ns,
        parsed,
        _KEPT if kept is None else kept,
        _PAUSE_NS if pause_ns is None else pause_ns,
    )


def _fly(
    plan: "FlightPlan", output: "CaptureName", settings: "Settings", *, is_strict: bool
) -> NoReturn:
    """Records until it is stopped, and says what was written."""
    from analyze.errors import IorecError
    from iorec.messages import format_flight, say
    from iorec.record.session import flight_session
    from iorec.status import StatusLine

    quiet = settings.is_quiet
    result = flight_session(
        output,
        plan,
        settings,
        StatusLine(settings.limits, settings.filters, is_quiet=quiet),
        lambda _: say(format_flight(settings, plan), is_quiet=quiet),
    )
    from iorec.outcome import say_live_end

    found = say_live_end(result.metadata, is_quiet=quiet)
    if result.captures or result.failure is None:
        written = "\n".join(map(str, result.captures))
        say(written or "no trigger fired: no capture", is_quiet=quiet)
    if result.failure is not None:
        raise result.failure
    if is_strict and found is not None and not found.is_complete:
        raise IorecError(found.message, found.hint, exit_code=3)
    raise typer.Exit(result.exit_status or 0)
