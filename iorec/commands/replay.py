# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec replay`."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyze.errors import IorecError, unknown_name
from iorec.host.terminal import output_width
from iorec.options import (
    COUNT,
    DURATION,
    Begin,
    End,
    Force,
    Json,
    Layer,
    Quiet,
    StrictFidelity,
    Verbose,
    Where,
)

if TYPE_CHECKING:
    from iorec.replay.outcome import Outcome
    from iorec.replay.session import Played, Prepared
    from iorec.replay.settings import Mapping

_DATA = re.compile(r"random|zero|compress:(\d{1,2})")
_LARGEST_DEPTH = 4096

EPILOG = """\b
Examples:
  sudo iorec replay run.parquet --map nvme0n1=/dev/loop3 --dry-run
  sudo iorec replay run.parquet --map nvme0n1=/dev/loop3 -o replayed.parquet
  sudo iorec replay run.parquet --map sda=/dev/sdx --allow-writes /dev/sdx
  sudo iorec replay run.parquet --map sda=/dev/sdx --speed 2 --loop open --strict
"""


def replay(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", help="What to replay.", readable=False)
    ],
    mapping: Annotated[
        list[str],
        typer.Option(
            "--map",
            metavar="DEVICE=TARGET",
            help="Do the I/Os of this device of the capture on that whole device, or file. May be"
            " repeated; devices without a target are left out.",
        ),
    ],
    speed: Annotated[
        str,
        typer.Option(metavar="X", help="2 is twice as fast, 0.5 half; max: without any pause."),
    ] = "1",
    loop: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="open: at the captured times. closed: each I/O after the one that its thread"
            " waited for. By default closed for threads that seem to wait; waits across threads,"
            " and timers that look like waits, are not known.",
            show_default=False,
        ),
    ] = None,
    think_scale: Annotated[
        float,
        typer.Option(metavar="X", help="Multiplies the pauses of a closed loop."),
    ] = 1.0,
    allow_writes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TARGET",
            help="Write to this target of a --map, which overwrites what it holds; else targets"
            " are only read. One that is in use, or holds anything, is refused. A new file is"
            " made.",
        ),
    ] = None,
    destroy_data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TARGET",
            help="Write although the target holds a file system or another signature.",
        ),
    ] = None,
    writes: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="What writes become on targets that are only read: read or skip."
        ),
    ] = "read",
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What is written, as captures hold no data: random, zero, or compress:50, of which"
            " 50 % are zeros.",
        ),
    ] = "random",
    fit: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What becomes of I/Os beyond the target's end, or not in its blocks: refuse, wrap"
            " (start again at its beginning) or scale (by the sizes of both).",
        ),
    ] = "refuse",
    layer: Layer = None,
    begin: Begin = None,
    end: End = None,
    where: Where = None,
    depth: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="The most I/Os in flight; by default 8 fewer than the target's queue holds.",
        ),
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Run the loop ahead of ordinary processes (SCHED_FIFO)."),
    ] = False,
    give_up_late: Annotated[
        int,
        typer.Option(
            parser=DURATION,
            metavar="TIME",
            help="End when I/Os are this late, as on a target that is too slow; by default 5s.",
            show_default=False,
        ),
    ] = 5_000_000_000,
    accept_losses: Annotated[
        bool,
        typer.Option("--accept-losses", help="Replay a capture that does not hold every I/O."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Keep the capture of the replay."),
    ] = None,
    force: Force = False,
    no_record: Annotated[
        bool,
        typer.Option(
            "--no-record", help="Run no recorder: the verdict is then what the loop itself saw."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and do nothing.")
    ] = False,
    strict: StrictFidelity = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Do the I/Os of a capture again on another device, and say how faithfully.

    The plan is printed first. A recorder on the target sees what really happens, and its capture is
    compared with what was asked for: iorec fidelity explains the verdict.
    """
    from analyze.capture_name import CaptureName
    from iorec.replay.session import replay_session
    from iorec.replay.settings import FITS, LOOPS, WRITES, Permission, Settings
    from iorec.waiting import WaitingLine

    for option, value, known in (
        ("replay writes as", writes, WRITES),
        ("fit by", fit, FITS),
        ("run the loop", loop or LOOPS[0], LOOPS),
    ):
        if value not in known:
            raise unknown_name(option, value, known)
    _check(data, think_scale, depth)
    if output is not None and no_record:
        raise IorecError("-o and --no-record exclude each other", "choose one", exit_code=2)
    if force and output is None:
        raise IorecError("-f is for an output, and there is none", "name it with -o", exit_code=2)
    settings = Settings(
        capture=capture,
        mappings=tuple(map(_parse_mapping, mapping)),
        permission=Permission(tuple(allow_writes or ()), tuple(destroy_data or ())),
        command=("iorec", *sys.argv[1:]),
        speed=_parse_speed(speed),
        loop=loop or LOOPS[0],
        think_scale=think_scale,
        writes=writes,
        data=data,
        fit=fit,
        layer=layer,
        begin=begin,
        end=end,
        where=where,
        depth=depth,
        is_realtime=realtime,
        give_up_ns=give_up_late,
        accepts_losses=accept_losses,
        output=None if output is None else CaptureName.parse(output),
        is_forced=force,
        is_recorded=not no_record,
        is_dry=dry_run,
        is_quiet=quiet,
    )
    outcomes: list[Outcome] = []
    replay_session(
        settings,
        lambda prepared: _announce(prepared, is_quiet=quiet or (json and not dry_run), json=json),
        lambda played: outcomes.append(_finish(played)),
        WaitingLine(),
    )
    if outcomes:
        _end(outcomes[0], json=json, strict=strict, quiet=quiet)


def _check(data: str, think_scale: float, depth: int | None) -> None:
    if not _DATA.fullmatch(data):
        raise IorecError(f"cannot write {data!r}", "give random, zero or compress:PERCENT", 2)
    if not 0 <= think_scale <= 1e6:
        raise IorecError(f"a think scale of {think_scale:g} is out of range", "give 0 to 1e6", 2)
    if depth is not None and depth > _LARGEST_DEPTH:
        raise IorecError(f"a depth of {depth} is out of range", f"give 1 to {_LARGEST_DEPTH}", 2)


def _parse_mapping(text: str) -> "Mapping":
    from iorec.replay.settings import Mapping

    source, sign, target = text.partition("=")
    if not (source and sign and target):
        raise IorecError(
            f"--map {text} names no device and target", "write --map nvme0n1=/dev/loop3", 2
        )
    return Mapping(source, Path(target))


def _parse_speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = -1
    if not 0.001 <= speed <= 1000:
        raise IorecError(f"a speed of {text} is out of range", "give 0.001 to 1000, or max", 2)
    return speed


def _announce(prepared: "Prepared", *, is_quiet: bool, json: bool) -> None:
    from iorec.replay.words import plan_lines, plan_warnings

    if json and prepared.settings.is_dry:
        from analyze.render.json import render_json

        typer.echo(render_json(prepared.plan), nl=False)
        return
    for line in () if is_quiet else plan_lines(prepared):
        typer.echo(line, err=not prepared.settings.is_dry)
    for line in plan_warnings(prepared):
        typer.echo(f"warning: {line}", err=True)


def _finish(played: "Played") -> "Outcome":
    # Only now: it starts threads.
    from iorec.replay.outcome import make_outcome

    if played.failure is not None:
        for warning in played.warnings:
            typer.echo(warning, err=True)
    return make_outcome(played)


def _end(outcome: "Outcome", *, json: bool, strict: bool, quiet: bool) -> None:
    """Prints the verdict, and raises what is an error of it."""
    from analyze.fidelity import FAITHFUL
    from analyze.render.fidelity import render_fidelity
    from analyze.render.json import render_json
    from iorec.replay.words import end_lines, ending_error

    for line in outcome.warnings:
        typer.echo(line, err=True)
    if json:
        typer.echo(render_json(outcome.fidelity or outcome.replay), nl=False)
    else:
        for line in end_lines(outcome.replay, outcome.capture, is_quiet=quiet):
            typer.echo(line, err=True)
    if outcome.fidelity is not None and not (json or quiet):
        typer.echo(render_fidelity(outcome.fidelity, output_width()), nl=False)
    if outcome.failure is not None:
        raise outcome.failure
    error = ending_error(outcome.replay)
    if error is not None:
        raise error
    if strict and outcome.replay.verdict != FAITHFUL:
        lines = "; ".join(outcome.replay.failed_lines)
        raise IorecError(
            f"{outcome.replay.verdict}: {lines}", "--strict asked for a faithful replay", 3
        )
