# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec doctor`."""

import textwrap
from dataclasses import asdict
from json import dumps

import typer

from iorec import __version__
from iorec.host.signals import raising_interrupts
from iorec.host.terminal import output_width
from iorec.options import Json, Verbose

EPILOG = """\b
Examples:
  sudo iorec doctor
  sudo iorec doctor --json     to attach to a bug report about iorec
"""


def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Try each part that a recording needs, and say what mends it; exit with 1 if one is missing.

    Nothing is recorded, and nothing stays.
    """
    from iorec.record.doctor import describe_machine, run_checks

    with raising_interrupts():
        machine, checks = describe_machine(), list(run_checks())
    works = all(check.is_fine or not check.is_needed for check in checks)
    if json:
        document = {"iorec": __version__, "machine": machine, "works": works}
        typer.echo(dumps(document | {"checks": [asdict(check) for check in checks]}, indent=2))
        raise typer.Exit(0 if works else 1)
    width = output_width()
    lines = textwrap.wrap(f"iorec {__version__} on {machine}", width)
    for check in checks:
        word = "ok" if check.is_fine else "MISSING" if check.is_needed else "without"
        lines += textwrap.wrap(
            f"{word:<8} {check.name:<20} {check.text}", width, subsequent_indent=" " * 30
        )
        if check.hint:
            lines += textwrap.wrap(f"hint: {check.hint}", width, initial_indent=" " * 30,
                                   subsequent_indent=" " * 30)  # fmt: skip
    lines.append("recording works" if works else "recording does not work")
    typer.echo("\n".join(lines))
    raise typer.Exit(0 if works else 1)
