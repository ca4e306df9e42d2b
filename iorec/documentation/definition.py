# SPDX-License-Identifier: GPL-2.0-only
"""Reads the commands and their options from the command line's definition."""

import re
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup
from typer.models import TyperPath

from analyze.groupings import GROUPINGS, SORTS
from analyze.load import LOAD_SORTS
from analyze.schema import LAYERS
from iorec.cli import app

# What the definition says in words only.
_VALUES = {
    "by": tuple(GROUPINGS),
    "sort": tuple(dict.fromkeys((*SORTS, *LOAD_SORTS))),
    "layer": LAYERS,
}


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument, whose `names` are empty; a flag has an empty `metavar`."""

    names: tuple[str, ...]
    metavar: str
    help: str
    values: tuple[str, ...]
    is_file: bool
    is_device: bool
    is_repeatable: bool

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar


@dataclass(frozen=True)
class Command:
    """A command; its `examples` are lines as they are typed, with a remark after two spaces."""

    name: str
    summary: str
    description: str
    usage: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    examples: tuple[str, ...]


def read_commands() -> tuple[Command, ...]:
    """Every command that is not hidden, in the order of the help."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return tuple(
        _read_command(name, command)
        for name, command in group.commands.items()
        if not command.hidden
    )


def _read_command(name: str, command: Any) -> Command:
    context = typer.Context(command, info_name=name, help_option_names=["-h", "--help"])
    summary, _, description = (command.help or "").partition("\n\n")
    parameters = [(param, _read_parameter(param, context)) for param in command.get_params(context)]
    examples = (command.epilog or "").partition("Examples:\n")[2].splitlines()
    return Command(
        name=name,
        summary=" ".join(summary.split()),
        description=description,
        usage=" ".join(
            re.sub("[{}]", "", piece) for piece in command.collect_usage_pieces(context)
        ),
        arguments=tuple(made for param, made in parameters if param.param_type_name == "argument"),
        options=tuple(made for param, made in parameters if param.param_type_name == "option"),
        examples=tuple(line.strip() for line in examples),
    )


def _read_parameter(param: Any, context: typer.Context) -> Parameter:
    is_option = param.param_type_name == "option"
    _, text = param.get_help_record(context)
    return Parameter(
        names=tuple(sorted(param.opts, key=len)) if is_option else (),
        metavar="" if is_option and param.is_flag else param.metavar or param.name.upper(),
        help=text,
        values=tuple(getattr(param.type, "choices", _VALUES.get(param.name, ()))),
        is_file=isinstance(param.type, TyperPath),
        is_device=param.name == "device",
        is_repeatable=param.multiple or param.nargs == -1,
    )
