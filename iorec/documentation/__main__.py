# SPDX-License-Identifier: GPL-2.0-only
"""Writes every page and completion to its usual place below a prefix, or the JSON Schemas."""

import sys
from pathlib import Path

from analyze.explain import Explanation
from analyze.fidelity import Fidelity
from analyze.info import Info
from analyze.report import Report
from iorec import __version__
from iorec.documentation.completion import format_bash, format_fish, format_zsh
from iorec.documentation.definition import read_commands
from iorec.documentation.json_schema import format_schema
from iorec.documentation.man import format_command_page, format_main_page


def documents() -> dict[str, str]:
    """The text of each file by its path below the prefix."""
    commands = read_commands()
    pages = {f"iorec-{command.name}": format_command_page(command) for command in commands}
    pages["iorec"] = format_main_page(commands)
    version = f"iorec {__version__}"
    return {
        **{f"share/man/man1/{name}.1": text for name, text in pages.items()},
        "share/bash-completion/completions/iorec": format_bash(commands, version),
        "share/zsh/site-functions/_iorec": format_zsh(commands, version),
        "share/fish/vendor_completions.d/iorec.fish": format_fish(commands, version),
    }


def schemas() -> dict[str, str]:
    """The text of each JSON Schema by its path in the project."""
    return {
        "docs/schema/report.json": format_schema(Report, "iorec report"),
        "docs/schema/info.json": format_schema(Info, "iorec info"),
        "docs/schema/explain.json": format_schema(Explanation, "iorec explain"),
        "docs/schema/fidelity.json": format_schema(Fidelity, "iorec fidelity"),
    }


def main() -> None:
    """Writes what an installation has below the prefix that is named; without one the schemas."""
    prefix = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    made = documents() if len(sys.argv) > 1 else schemas()
    for name, text in made.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
