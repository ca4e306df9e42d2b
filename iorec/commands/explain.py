# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec explain`."""

from typing import Annotated

import typer

from iorec.host.signals import interruptible, raising_interrupts
from iorec.host.terminal import output_width
from iorec.options import COUNT, Begin, Captures, End, Json, Verbose, Where

EPILOG = """\b
Examples:
  sudo iorec record -l syscall,wait,request -o run.parquet -c 'postgres*' --duration 10s
  iorec explain run.parquet
  iorec explain run.parquet --slowest 1 --where "op = 'fsync' AND process LIKE 'postgres%'"
"""


def explain(
    captures: Captures,
    slowest: Annotated[
        int,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="Explain the N calls that took longest, by default 3.",
            show_default=False,
        ),
    ] = 3,
    uring: Annotated[
        bool, typer.Option("--uring", help="Operations of io_uring instead of system calls.")
    ] = False,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    json: Json = False,
    verbose: Verbose = False,
) -> str:
    """Say where the time of slow calls went: to which I/Os of disks, and whose these were.

    The capture needs the layer syscall and, of disks, request; with the layer wait it also says
    where the thread was blocked, and how long it waited for a CPU, first of all calls together.
    """
    from analyze.capture import open_captures
    from analyze.explain import Explanation, explain_all, explain_calls
    from analyze.render.explain import render_explained
    from analyze.render.json import render_json

    layer = "uring" if uring else "syscall"
    with (
        raising_interrupts(),
        open_captures(captures, begin=begin, end=end, where=where, layer=layer) as capture,
        interruptible(capture.connection.interrupt),
    ):
        calls = explain_calls(capture, slowest)
        explanation = Explanation(None if uring else explain_all(capture), calls)
        origin_ns = capture.origin_ns
    if json:
        return render_json(explanation)
    return render_explained(explanation, origin_ns, output_width())
