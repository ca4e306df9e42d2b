# SPDX-License-Identifier: GPL-2.0-only
"""Formats commands as completions for bash, zsh and fish; they run without iorec."""

import re
import shlex
from collections.abc import Iterable, Sequence
from string import Template

from iorec.documentation.definition import Command, Parameter

_DEVICES = "/sys/class/block/"

_BASH = Template(r"""# Completion for bash, made by $version from its command line.
_iorec() {
	local command=$${COMP_WORDS[1]} word=$${COMP_WORDS[COMP_CWORD]}
	local before=$${COMP_WORDS[COMP_CWORD - 1]} values= i
	COMPREPLY=()
	for ((i = 2; i < COMP_CWORD; i++)); do
		[[ $${COMP_WORDS[i]} == -- ]] || continue
		if declare -F _command_offset >/dev/null; then
			_command_offset $$((i + 1))
		else
			mapfile -t COMPREPLY < <(compgen -c -- "$$word")
		fi
		return
	done
	[[ $$word != = ]] || word=
	[[ $$before != = ]] || before=$${COMP_WORDS[COMP_CWORD - 2]}
	((COMP_CWORD > 1)) || command=
	case $$command:$$before in
$values
	*)
		case $$command:$$word in
$options
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$$values" -- "$$word")
}
complete -o default -F _iorec iorec
""")

_ZSH = Template(r"""#compdef iorec
# Completion for zsh, made by $version from its command line.
_iorec() {
	local context state state_descr curcontext=$$curcontext
	local -a line commands
	local -A opt_args
	commands=(
$commands
	)
	_arguments -C '(- *)'{-h,--help}'[Show the help]' '(- *)'{-V,--version}'[Print the version]' \
		'1:command:->command' '*:: :->arguments'
	case $$state in
	command) _describe command commands ;;
	arguments)
		case $$line[1] in
$cases
		esac
		;;
	esac
}
_iorec "$$@"
""")


def format_bash(commands: Sequence[Command], version: str) -> str:
    """The completion for bash; what it does not know, bash completes as a file name."""
    values = [f"\t:*) values={shlex.quote(_words(command.name for command in commands))} ;;"]
    options = []
    for command in commands:
        names = _words(name for option in command.options for name in option.names)
        options.append(f"\t\t{command.name}:-*) values={shlex.quote(names)} ;;")
        for option in command.options:
            if option.is_flag:
                continue
            cases = " | ".join(f"{command.name}:{name}" for name in option.names)
            values.append(f"\t{cases}) {_bash_value(option)} ;;")
    return _BASH.substitute(version=version, values="\n".join(values), options="\n".join(options))


def _bash_value(option: Parameter) -> str:
    if option.is_device:
        return f'values="$(cd {_DEVICES} && echo *)"'
    if option.values:
        return f"values={shlex.quote(_words(option.values))}"
    return ":" if option.is_file else "compopt +o default"


def format_zsh(commands: Sequence[Command], version: str) -> str:
    """The completion for zsh, with what each option does."""
    listed = [f"\t\t{shlex.quote(f'{c.name}:{c.summary}')}" for c in commands]
    cases = []
    for command in commands:
        specs = [_zsh_option(option) for option in command.options]
        specs += [_zsh_argument(argument) for argument in command.arguments]
        joined = " \\\n\t\t\t\t".join(specs)
        cases.append(f"\t\t{command.name})\n\t\t\t_arguments -s {joined}\n\t\t\t;;")
    return _ZSH.substitute(version=version, commands="\n".join(listed), cases="\n".join(cases))


def _zsh_option(option: Parameter) -> str:
    text = re.sub(r"([][:\\])", r"\\\1", option.help)
    action = ""
    if option.is_device:
        action = f":{option.metavar}:_path_files -W {_DEVICES}"
    elif option.values:
        action = f":{option.metavar}:({_words(option.values)})"
    elif option.is_file:
        action = f":{option.metavar}:_files"
    elif option.metavar:
        action = f":{option.metavar}: "
    first = "*" if option.is_repeatable else f"({_words(option.names)})"
    names = "{" + ",".join(option.names) + "}" if len(option.names) > 1 else option.names[0]
    return f"{shlex.quote(first)}{names}{shlex.quote(f'[{text}]{action}')}"


def _zsh_argument(argument: Parameter) -> str:
    if argument.is_file:
        many = "*" if argument.is_repeatable else ""
        return shlex.quote(f"{many}:{argument.metavar}:_files")
    return "'*::command: _normal'"


def format_fish(commands: Sequence[Command], version: str) -> str:
    """The completion for fish."""
    lines = [
        f"# Completion for fish, made by {version} from its command line.",
        "complete -c iorec -f",
        "complete -c iorec -n __fish_use_subcommand -s V -l version -d 'Print the version'",
        "complete -c iorec -n __fish_use_subcommand -s h -l help -d 'Show the help'",
    ]
    for command in commands:
        lines.append(
            f"complete -c iorec -n __fish_use_subcommand -a {command.name}"
            f" -d {_fish_quoted(command.summary)}"
        )
        for parameter in (*command.options, *command.arguments):
            lines.append(_fish_line(command, parameter))
    return "\n".join(lines) + "\n"


def _fish_line(command: Command, parameter: Parameter) -> str:
    line = f"complete -c iorec -n '__fish_seen_subcommand_from {command.name}'"
    for name in parameter.names:
        line += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
    if parameter.is_device:
        line += f" -x -a '(path basename {_DEVICES}*)'"
    elif parameter.values:
        line += f" -x -a {_fish_quoted(_words(parameter.values))}"
    elif parameter.is_file:
        line += " -r -F" if parameter.names else " -F"
    elif not parameter.names:
        line += " -a '(__fish_complete_command)'"
    elif not parameter.is_flag:
        line += " -x"
    return f"{line} -d {_fish_quoted(parameter.help)}" if parameter.names else line


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _words(words: Iterable[str]) -> str:
    return " ".join(words)
