# SPDX-License-Identifier: GPL-2.0-only
"""The options that commands share, so that each means the same in all of them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from analyze.errors import IorecError
from analyze.units import MOMENT_FORMS, parse_count, parse_duration_ns, parse_size_bytes


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


COUNT, DURATION, SIZE = map(_parsed_by, (parse_count, parse_duration_ns, parse_size_bytes))

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
        help="Show request or bio; by default request, and bio of devices without requests.",
        show_default=False,
    ),
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
