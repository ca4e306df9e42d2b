# SPDX-License-Identifier: GPL-2.0-only
"""Formats commands as man pages."""

import re
from collections.abc import Iterable, Sequence

from iorec import __version__
from iorec.documentation.definition import Command, Parameter

_EXIT_STATUS = (
    ("0", "Done, or stopped as asked."),
    ("1", "It failed; standard error says why and what to do."),
    ("2", "The command line is wrong."),
)
_RECORD_STATUS = (
    ("3", "With \\-\\-strict: an I/O was lost."),
    ("other", "The exit status of the recorded command, 128 more than the signal that ended it."),
)


def format_main_page(commands: Sequence[Command]) -> str:
    """The page that lists the commands."""
    return _page(
        "iorec",
        "record every I/O of a Linux machine; report and plot it anywhere",
        ".B iorec\n.I COMMAND\n.RI [ OPTIONS ]\n",
        _section(
            "DESCRIPTION",
            "Records every block I/O with eBPF into one file, which any of the other commands reads"
            " on any machine, without root.",
        ),
        ".SH COMMANDS\n",
        *(
            f".TP\n.BR iorec\\-{command.name} (1)\n{_escaped(command.summary)}\n"
            for command in commands
        ),
        _options((_flag(("-V", "--version"), "Print the version."),)),
        _examples(["sudo iorec record -o run.parquet", "iorec report run.parquet"]),
        _statuses(_EXIT_STATUS),
        _see_also(command.name for command in commands),
    )


def format_command_page(command: Command) -> str:
    """The page of one command."""
    statuses = _EXIT_STATUS + (_RECORD_STATUS if command.name == "record" else ())
    return _page(
        f"iorec-{command.name}",
        command.summary.rstrip("."),
        f".B iorec {command.name}\n{_escaped(command.usage)}\n",
        _section("DESCRIPTION", " ".join((command.description or command.summary).split())),
        *(
            f".TP\n.I {_escaped(argument.metavar)}\n{_escaped(argument.help)}\n"
            for argument in command.arguments
        ),
        _options(command.options),
        _examples(command.examples),
        _statuses(statuses),
        _see_also([""]),
    )


def _page(name: str, summary: str, synopsis: str, *sections: str) -> str:
    title = name.upper().replace("-", "\\-")
    summary = summary[:1].lower() + summary[1:]
    return (
        f'.\\" Page made by iorec {__version__} from its command line.\n'
        f'.TH {title} 1 "" "iorec {__version__}" "iorec"\n'
        f".SH NAME\n{_escaped(name)} \\- {_escaped(summary)}\n"
        f".SH SYNOPSIS\n{synopsis}" + "".join(sections)
    )


def _section(title: str, text: str) -> str:
    return f".SH {title}\n{_escaped(text)}\n"


def _flag(names: tuple[str, ...], text: str) -> Parameter:
    return Parameter(names, "", text, (), is_file=False, is_device=False, is_repeatable=False)


def _options(options: Iterable[Parameter]) -> str:
    entries = []
    for option in options:
        names = ", ".join(f"\\fB{_escaped(name)}\\fR" for name in option.names)
        value = f" \\fI{_escaped(option.metavar)}\\fR" if option.metavar else ""
        entries.append(f".TP\n{names}{value}\n{_escaped(option.help)}\n")
    return ".SH OPTIONS\n" + "".join(entries)


def _examples(lines: Iterable[str]) -> str:
    return ".SH EXAMPLES\n.EX\n" + "".join(f"{_escaped(line)}\n" for line in lines) + ".EE\n"


def _statuses(statuses: Iterable[tuple[str, str]]) -> str:
    return '.SH "EXIT STATUS"\n' + "".join(f".TP\n.B {code}\n{text}\n" for code, text in statuses)


def _see_also(commands: Iterable[str]) -> str:
    names = [f"iorec\\-{command}" if command else "iorec" for command in commands]
    return '.SH "SEE ALSO"\n' + " ,\n".join(f".BR {name} (1)" for name in names) + "\n"


def _escaped(text: str) -> str:
    """The text as it is: no character of it means anything to roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", "\\\\&", text, flags=re.MULTILINE)
