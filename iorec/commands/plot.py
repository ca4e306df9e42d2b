# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec plot`."""

from pathlib import Path
from typing import Annotated

import typer

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.escape import escape_for_terminal
from analyze.plot.kinds import Kind
from iorec.host.signals import interruptible, raising_interrupts
from iorec.host.workload import invoking_user
from iorec.options import Begin, Captures, End, Layer, Verbose, Where
from iorec.store.folder import Folder, check_free

EPILOG = """\b
Examples:
  iorec plot run.parquet
  iorec plot run.parquet -o latency.svg --kind heatmap
  iorec plot run.parquet -b 10 -e 20 --where "device = 'sda'" -f
"""


def plot(
    captures: Captures,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="A .png, .svg or .pdf; by default a .png beside the capture.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Kind, typer.Option(metavar="KIND", help=f"What to draw: {', '.join(Kind)}.")
    ] = Kind.OVERVIEW,
    layer: Layer = None,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite the output.")] = False,
    verbose: Verbose = False,
) -> None:
    """Draw what the storage did as a picture."""
    from analyze.capture import open_captures
    from analyze.plot.figure import draw
    from analyze.plot.output import image_suffix, render

    suffix = ".png" if output is None else image_suffix(output)
    with (
        raising_interrupts(),
        open_captures(captures, begin=begin, end=end, where=where, layer=layer) as capture,
        interruptible(capture.connection.interrupt),
    ):
        first = CaptureName(capture.files[0].path)
        path = output or first.path.with_name(f"{first.stem}.png")
        with Folder.open(path.parent, invoking_user()) as folder:
            check_free(folder, [path.name], is_forced=force)
            _write(folder, path, render(draw(capture, kind), suffix), is_forced=force)
    typer.echo(f"wrote {escape_for_terminal(str(path))}", err=True)


def _write(folder: Folder, path: Path, image: bytes, *, is_forced: bool) -> None:
    try:
        with folder.writing(path.name, is_forced=is_forced) as file:
            file.write(image)
    except OSError as error:
        raise IorecError(
            f"cannot write {path}: {error.strerror}", "give another place with -o"
        ) from error
