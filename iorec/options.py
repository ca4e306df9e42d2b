# SPDX-License-Identifier: GPL-2.0-only
"""The options that commands share, so that each means the same in all of them."""

import logging
from pathlib import Path
from typing import Annotated

import typer


def _log_details(is_verbose: bool) -> bool:
    if is_verbose:
        logging.getLogger("iorec").setLevel(logging.DEBUG)
    return is_verbose


Captures = Annotated[
    list[Path],
    typer.Argument(
        metavar="CAPTURE...",
        help="Files, globs or folders; several are read as one.",
        show_default=False,
    ),
]
Begin = Annotated[
    float | None,
    typer.Option("-b", "--begin", metavar="SECONDS", help="Leave out what came before."),
]
End = Annotated[
    float | None,
    typer.Option("-e", "--end", metavar="SECONDS", help="Leave out what came after."),
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
        help="Show tracebacks of errors; record also traces in the kernel.",
    ),
]
