# SPDX-License-Identifier: GPL-2.0-only
"""The command line: its commands, and the one place that prints errors."""

import contextlib
import io
import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from analyze.errors import IorecError
from analyze.escape import escape_for_terminal
from iorec import __version__
from iorec.commands import (
    doctor,
    explain,
    exporter,
    fidelity,
    info,
    plot,
    record,
    recover,
    replay,
    report,
    top,
    watch,
)
from iorec.host.advice import advice

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    help="Record every I/O of a Linux machine; report and plot it anywhere.",
    epilog="Start with: sudo iorec record -o run.parquet, then iorec report run.parquet",
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=record.EPILOG)(record.record)
app.command(epilog=watch.EPILOG)(watch.watch)
app.command(epilog=top.EPILOG)(top.top)
app.command(epilog=exporter.EPILOG)(exporter.exporter)
app.command(epilog=report.EPILOG)(report.report)
app.command(epilog=explain.EPILOG)(explain.explain)
app.command(epilog=plot.EPILOG)(plot.plot)
app.command(epilog=info.EPILOG)(info.info)
app.command(epilog=replay.EPILOG)(replay.replay)
app.command(epilog=fidelity.EPILOG)(fidelity.fidelity)
app.command(epilog=recover.EPILOG)(recover.recover)
app.command(epilog=doctor.EPILOG)(doctor.doctor)


def main() -> None:
    """Runs the command that the arguments name and exits with its code."""
    _secure_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command, writes what it returns and gives its exit code; errors become messages."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks must not end in an error.
            stream.reconfigure(errors="backslashreplace")
    try:
        result = app(arguments, prog_name="iorec", standalone_mode=False)
        if isinstance(result, str):
            _write(result)
    except BrokenPipeError:
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except Exception as error:
        return _print_error(error)
    return result if isinstance(result, int) else 0


class _Unfailing(io.FileIO):
    """Loses what nobody reads any more, as when a terminal has hung up."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def _secure_streams() -> None:
    """No message on stderr may end a recording, and no file get the number of a closed stream."""
    encoding = sys.stderr.encoding if sys.stderr else None
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(_Unfailing(2, "w", closefd=False), encoding, write_through=True)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        # Python flushes again when it exits, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"iorec {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command("help", hidden=True)
def _help(command: Annotated[str | None, typer.Argument()] = None) -> None:
    """Print the help of a command, or of all."""
    app([*filter(None, [command]), "--help"], prog_name="iorec", standalone_mode=False)


def _print_error(error: Exception) -> int:
    if logging.getLogger("iorec").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    explained = _explained(error)
    print(f"error: {escape_for_terminal(explained.message)}", file=sys.stderr)
    if explained.place is not None:
        text, place = explained.place
        before = escape_for_terminal(text[:place])
        print(f"  {before}{escape_for_terminal(text[place:])}", file=sys.stderr)
        print(f"  {' ' * len(before)}^", file=sys.stderr)
    print(f"hint: {escape_for_terminal(explained.hint)}", file=sys.stderr)
    return explained.exit_code


def _explained(error: Exception) -> IorecError:
    if isinstance(error, IorecError):
        return error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "iorec"
        message = error.format_message().rstrip(".").replace(": Value error, ", ": ")
        cause = error.__cause__
        hint = cause.hint if isinstance(cause, IorecError) else f"see {command} --help"
        return IorecError(message[:1].lower() + message[1:], hint, 2)
    if isinstance(error, OSError):
        return IorecError(str(error), advice(str(error)))
    return IorecError(
        f"unexpected {type(error).__name__}: {error}",
        "this is a defect of iorec: run it again with -v and report what it prints",
    )
