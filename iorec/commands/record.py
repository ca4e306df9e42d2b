# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec record`."""

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from analyze.units import COUNT_FORMS, DURATION_FORMS, SIZE_FORMS, format_bytes
from iorec.host.terminal import output_width
from iorec.options import COUNT, DURATION, SIZE, Verbose

_DEFAULT_BUFFER = 16 << 20
_LEAST_MAX_SIZE = 64 << 10  # the metadata, which each batch has, take 5 KiB and more

EPILOG = """\b
Examples:
  sudo iorec record -o run.parquet                  until Ctrl-C
  sudo iorec record -d nvme0n1 --op write --duration 30s
  sudo iorec record -o fio.parquet -- fio job.fio   until fio ends
  sudo iorec record -l bio -d zram0                 a device without requests
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
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite the output.")] = False,
    duration: Annotated[
        int | None,
        typer.Option(
            parser=DURATION, metavar="TIME", help=f"Stop after this time: {DURATION_FORMS}."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            parser=COUNT,
            metavar="COUNT",
            help=f"Stop after this many finished I/Os: {COUNT_FORMS}.",
        ),
    ] = None,
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
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "-l",
            "--layer",
            metavar="NAME",
            help="What to record: request (the default), bio, or both: request,bio.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--device",
            metavar="NAME",
            help="Only this disk or partition: its name, a glob, or a path on it.",
        ),
    ] = None,
    pid: Annotated[
        list[int] | None, typer.Option("-p", "--pid", metavar="PID", help="Only this process.")
    ] = None,
    comm: Annotated[
        list[str] | None,
        typer.Option("-c", "--comm", metavar="NAME", help="Only threads of this name or glob."),
    ] = None,
    cgroup: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="Only this cgroup and those below it.")
    ] = None,
    op: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this operation: read, write, flush, discard..."),
    ] = None,
    min_latency: Annotated[
        int | None,
        typer.Option(
            parser=DURATION, metavar="TIME", help="Only I/Os that take at least this: 10ms."
        ),
    ] = None,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="The recorder's own I/O too.")
    ] = False,
    buffer_size: Annotated[
        int,
        typer.Option(
            "-B",
            "--buffer-size",
            parser=SIZE,
            metavar="SIZE",
            help="Kernel buffer; by default 16M.",
            show_default=False,
        ),
    ] = _DEFAULT_BUFFER,
    cmdline: Annotated[
        bool,
        typer.Option(
            "--cmdline/--no-cmdline",
            help="Record command lines, also that of record itself; they may hold secrets.",
        ),
    ] = True,
    convert_later: Annotated[
        bool,
        typer.Option("--convert-later", help="Leave the .part file to iorec recover."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if any I/O was lost.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print nothing but warnings and errors.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Record every block I/O of the machine to a file.

    The layer request is what goes to the disks; bio is what is asked of every block device, also
    of those without requests (device-mapper, md, zram). Filters are decided in the kernel when an
    I/O is submitted; each may be repeated.
    """
    from analyze.capture_name import CaptureName
    from analyze.errors import IorecError
    from analyze.metadata import Filters
    from iorec import __version__
    from iorec.host.privileges import check_privileges
    from iorec.messages import (
        find_recorded_disk,
        format_leftovers,
        format_own_writes,
        format_start,
    )
    from iorec.record.filters import resolve_layers, with_resolved_devices
    from iorec.record.session import record_session
    from iorec.record.settings import Limits, Settings, buffer_bytes
    from iorec.status import StatusLine

    if duration == 0:
        raise IorecError("--duration is 0", "leave it out to record until Ctrl-C", exit_code=2)
    if max_size is not None and max_size < _LEAST_MAX_SIZE:
        raise IorecError(
            f"--max-size of {format_bytes(max_size)} is less than a batch of I/Os takes",
            f"give {format_bytes(_LEAST_MAX_SIZE)} or more",
            exit_code=2,
        )
    if rotate is not None and max_size is None:
        raise IorecError("--rotate needs --max-size", "say how large a file may be", exit_code=2)
    settings = Settings(
        output=CaptureName.parse(output or _default_output()),
        is_forced=force,
        layers=resolve_layers(layer or ["request"]),
        filters=with_resolved_devices(
            Filters(
                device=tuple(device or ()),
                pid=tuple(pid or ()),
                comm=tuple(comm or ()),
                cgroup=tuple(cgroup or ()),
                op=tuple(op or ()),
                min_latency_ns=min_latency,
                include_self=include_self,
            )
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
    check_privileges()
    for line in format_leftovers(settings.output.path.parent):
        typer.echo(line, err=True)
    # Now, while this process may look everywhere.
    own_disk = find_recorded_disk(settings.output.path.parent, settings.filters.resolved_device)
    result = record_session(
        settings,
        StatusLine(settings.limits, settings.filters, is_quiet=quiet),
        lambda has_trace: _say(format_start(settings, has_trace=has_trace), is_quiet=quiet),
    )
    # Only now: see its docstring.
    from iorec.outcome import format_end, summary_lines, verdict

    found = verdict(result)
    _say(format_end(result), is_quiet=quiet)
    # CSV takes too long to read: ten times as long, and compressed twenty times.
    if result.failure is None and result.path.suffix == ".parquet" and not quiet:
        for line in summary_lines(result.path, output_width(sys.stderr)):
            typer.echo(line, err=True)
    for line in found.warnings:
        typer.echo(line, err=True)
    if own_disk is not None:
        typer.echo(format_own_writes(result.path, own_disk, result.spool_bytes), err=True)
    if result.failure is not None:
        raise result.failure
    if strict and not found.is_complete:
        raise IorecError(found.message, found.hint, exit_code=3)
    raise typer.Exit(result.exit_status or 0)


def _say(text: str, *, is_quiet: bool) -> None:
    if not is_quiet:
        typer.echo(text, err=True)


def _default_output() -> Path:
    return Path(f"iorec-{platform.node()}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.parquet")
