# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec recover`."""

from pathlib import Path
from typing import Annotated

import typer

from analyze.escape import escape_for_terminal
from analyze.units import format_count
from iorec.host.signals import SignalWaiter
from iorec.options import Verbose
from iorec.waiting import WaitingLine

EPILOG = """\b
Examples:
  iorec recover run.parquet.part
  iorec recover run.parquet.part -o saved.csv.gz
"""


def recover(
    part: Annotated[
        Path,
        typer.Argument(
            metavar="SPOOL",
            help="The .part file of an interrupted recording.",
            readable=False,  # who opens it says more of what cannot be read
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The capture; default: the name without .part."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite the output.")] = False,
    verbose: Verbose = False,
) -> None:
    """Bring back what an interrupted recording had written.

    Every I/O up to the last second before a crash, kill or power cut becomes a capture that is
    marked as recovered.
    """
    from iorec.store.recover import recover as recover_spool

    with SignalWaiter() as signals, WaitingLine() as waiting:

        def on_rows(rows: int, share: float) -> None:
            signals.check()
            waiting.show(f"{format_count(rows)} I/Os written", share)

        result = recover_spool(part, output, on_rows, is_forced=force)
    # Only now: see its docstring.
    from iorec.outcome import format_end, verdict

    for line in (format_end(result), *verdict(result.metadata).warnings):
        typer.echo(line, err=True)
    if result.failure is not None:
        said = f"{result.failure.message}; {result.failure.hint}"
        typer.echo(f"warning: {escape_for_terminal(said)}", err=True)
    elif part.exists():
        name = escape_for_terminal(str(part))
        typer.echo(f"warning: {name} could not be removed: do so yourself", err=True)
