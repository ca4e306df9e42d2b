# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec plot`."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.escape import escape_for_terminal
from analyze.plot.kinds import By, Kind
from iorec.host.signals import interruptible, raising_interrupts
from iorec.host.workload import invoking_user
from iorec.options import Begin, Captures, End, Layer, Verbose, Where
from iorec.store.folder import Folder, check_free
from iorec.waiting import showing_queries

EPILOG = """\b
Examples:
  iorec plot run.parquet
  iorec plot run.parquet -o latency.svg --kind heatmap
  iorec plot run.parquet --by file --mark 15:16:10=deployed
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
            help="A .png, .svg or .pdf; by default a .png beside the capture, which the next plot"
            " replaces.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Kind, typer.Option(metavar="KIND", help=f"What to draw: {', '.join(Kind)}.")
    ] = Kind.OVERVIEW,
    by: Annotated[
        By, typer.Option(metavar="KEY", help=f"Whose I/O to tell apart: {', '.join(By)}.")
    ] = By.PROCESS,
    mark: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME=TEXT", help="Draw a line at a time as -b takes it; repeatable."),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw a line for each line of a log: a time and a text.",
            show_default=False,
        ),
    ] = None,
    layer: Layer = None,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite the output.")] = False,
    verbose: Verbose = False,
) -> None:
    """Draw what the storage did as a picture."""
    # Where it can keep nothing, as without a home directory, matplotlib would say so at length.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from analyze.capture import open_captures
    from analyze.plot.figure import draw
    from analyze.plot.marks import load_marks
    from analyze.plot.output import image_suffix, render

    if kind is Kind.TIMELINE and layer is None:
        layer = "syscall"
    suffix = ".png" if output is None else image_suffix(output)
    with (
        raising_interrupts(),
        open_captures(
            captures, begin=begin, end=end, where=where, layer=layer, counts_progress=True
        ) as capture,
        interruptible(capture.connection.interrupt),
        showing_queries(capture.connection.query_progress),
    ):
        first = CaptureName(capture.files[0].path)
        path = output or first.path.with_name(f"{first.stem}.png")
        with Folder.open(path.parent, invoking_user()) as folder:
            is_replaceable = output is None and _is_ours(folder, path.name)
            check_free(folder, [path.name], is_forced=force or is_replaceable)
            named = load_marks(capture, mark or (), marks)
            image = render(draw(capture, kind, by, named), suffix)
            # Another file may have taken the name while we drew.
            is_replaceable = is_replaceable and _is_ours(folder, path.name)
            _write(folder, path, image, is_forced=force or is_replaceable)
    typer.echo(f"wrote {escape_for_terminal(str(path))}", err=True)


def _is_ours(folder: Folder, name: str) -> bool:
    """Whether the file is an earlier picture of ours, to be replaced without a word."""
    from analyze.plot.output import PNG_START_BYTES, is_our_png

    return is_our_png(folder.read_start(name, PNG_START_BYTES))


def _write(folder: Folder, path: Path, image: bytes, *, is_forced: bool) -> None:
    try:
        with folder.writing(path.name, is_forced=is_forced, mode=0o666) as file:
            file.write(image)
    except OSError as error:
        raise IorecError(
            f"cannot write {path}: {error.strerror}", "give another place with -o"
        ) from error
