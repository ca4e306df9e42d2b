# SPDX-License-Identifier: GPL-2.0-only
"""The options that commands share, so that each means the same in all of them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from analyze.errors import IorecError
from analyze.units import (
    COUNT_FORMS,
    DURATION_FORMS,
    MOMENT_FORMS,
    parse_count,
    parse_duration_ns,
    parse_size_bytes,
)

DEFAULT_BUFFER = 16 << 20


def _log_details(is_verbose: bool) -> bool:
    if is_verbose:
        logging.getLogger("iorec").setLevel(logging.DEBUG)
    return is_verbose


def _parsed_by(parse: Callable[[str], int]) -> Callable[[str | int], int]:
    """A parser for an option whose error names the option; its default is a number already."""

    def parse_option(value: str | int) -> int:
        try:
            return value if isinstance(value, int) else parse(value)
        except IorecError as error:
            raise typer.BadParameter(error.message) from error

    return parse_option


def _least_duration(value: str | int) -> int:
    duration_ns = DURATION(value)
    if duration_ns == 0:
        raise typer.BadParameter("0 is no time: leave it out to go on until Ctrl-C")
    return duration_ns


COUNT, DURATION, SIZE = map(_parsed_by, (parse_count, parse_duration_ns, parse_size_bytes))

# What is recorded.
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite the output.")]
Duration = Annotated[
    int | None,
    typer.Option(
        parser=_least_duration, metavar="TIME", help=f"Stop after this time: {DURATION_FORMS}."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--count",
        parser=COUNT,
        metavar="COUNT",
        help=f"Stop after this many finished I/Os: {COUNT_FORMS}.",
    ),
]
RecordedLayers = Annotated[
    list[str] | None,
    typer.Option(
        "-l",
        "--layer",
        metavar="NAME",
        help="What to record: request (the default), bio, syscall, uring, aio, and wait with"
        " syscall; several as request,bio; or all.",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "-d",
        "--device",
        metavar="NAME",
        help="Only this disk or partition: its name, a glob, or a path on it.",
    ),
]
Pids = Annotated[
    list[int] | None, typer.Option("-p", "--pid", metavar="PID", help="Only this process.")
]
Comms = Annotated[
    list[str] | None,
    typer.Option("-c", "--comm", metavar="NAME", help="Only threads of this name or glob."),
]
Cgroups = Annotated[
    list[str] | None,
    typer.Option("--cgroup", metavar="PATH", help="Only this cgroup and those below it."),
]
Ops = Annotated[
    list[str] | None,
    typer.Option(
        "--op", metavar="NAME", help="Only this operation: read, write, flush, discard..."
    ),
]
Syscalls = Annotated[
    list[str] | None,
    typer.Option(
        "--syscall",
        metavar="NAME",
        help="Of the layer syscall only this call: fsync, or several: pread64,pwrite64.",
    ),
]
MinLatency = Annotated[
    int | None,
    typer.Option(parser=DURATION, metavar="TIME", help="Only I/Os that take at least this: 10ms."),
]
IncludeSelf = Annotated[bool, typer.Option("--include-self", help="The recorder's own I/O too.")]
BufferSize = Annotated[
    int,
    typer.Option(
        "-B",
        "--buffer-size",
        parser=SIZE,
        metavar="SIZE",
        help="Kernel buffer; by default 16M.",
        show_default=False,
    ),
]
Cmdlines = Annotated[
    bool,
    typer.Option(
        "--cmdline/--no-cmdline",
        help="Record command lines, also that of record itself; they may hold secrets.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print nothing but warnings and errors.")
]

# What is read.
Captures = Annotated[
    list[Path],
    typer.Argument(
        metavar="CAPTURE...",
        readable=False,  # who opens it says more than typer of what cannot be read
        help="Files, globs or folders; several are read as one.",
        show_default=False,
    ),
]
Begin = Annotated[
    str | None,
    typer.Option(
        "-b", "--begin", metavar="TIME", help=f"Leave out what came before: {MOMENT_FORMS} (UTC)."
    ),
]
End = Annotated[
    str | None,
    typer.Option("-e", "--end", metavar="TIME", help="Leave out what came at that time or later."),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION", help="Only I/Os that meet this SQL condition on the columns."
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "-l",
        "--layer",
        metavar="NAME",
        help="Show request, bio, syscall, uring, aio or wait; by default request, or bio of devices"
        " without requests.",
        show_default=False,
    ),
]
StrictFidelity = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 unless the replay is faithful.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing rounded.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v",
        "--verbose",
        callback=_log_details,
        help="Show tracebacks of errors; in record also trace in the kernel.",
    ),
]
