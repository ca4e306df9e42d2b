# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec fidelity`."""

from pathlib import Path
from typing import Annotated

import typer

from analyze.errors import IorecError
from iorec.host.signals import raising_interrupts
from iorec.host.terminal import output_width
from iorec.options import Json, StrictFidelity, Verbose

EPILOG = """\b
Examples:
  iorec fidelity run.parquet replayed.parquet
  iorec fidelity run.parquet replayed.parquet --strict
"""


def fidelity(
    source: Annotated[
        Path,
        typer.Argument(metavar="CAPTURE", help="What was to be replayed.", readable=False),
    ],
    replayed: Annotated[
        Path,
        typer.Argument(
            metavar="REPLAYED", help="A capture of the replay, by whatever tool.", readable=False
        ),
    ],
    strict: StrictFidelity = False,
    json: Json = False,
    verbose: Verbose = False,
) -> str:
    """Say how faithfully a capture repeats another one.

    Matches the nth I/O of an operation, place and size with the nth. The verdict is faithful,
    usable or not comparable, by limits that docs/replay.md explains; where it is the last one,
    latencies are not compared.
    """
    from analyze.fidelity import FAITHFUL
    from analyze.fidelity_measures import compare
    from analyze.render.fidelity import render_fidelity
    from analyze.render.json import render_json

    with raising_interrupts():
        found = compare(source, replayed)
    text = render_json(found) if json else render_fidelity(found, output_width())
    if strict and found.word != FAITHFUL:
        typer.echo(text, nl=False)
        lines = "; ".join(rule.text for rule in found.failed)
        raise IorecError(f"{found.word}: {lines}", "--strict asked for a faithful replay", 3)
    return text
