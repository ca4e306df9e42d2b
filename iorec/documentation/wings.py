# SPDX-License-Identifier: GPL-2.0-only
"""Draws the wings and their imports into ARCHITECTURE.md: `python -m iorec.documentation.wings`.

A wing is a folder of iorec/, `cli` (iorec/commands and the files beside it), `analyze`, one of its
two folders, or `analyze.capture`, which offers Python programs what the rest of it does. The
imports are read by grimp, which comes with the development tools.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

_DOCUMENT = Path("ARCHITECTURE.md")
_DRAWING = re.compile(r"(?<=<!-- wings -->\n).*(?=<!-- /wings -->)", re.DOTALL)

Wings = Mapping[str, set[str]]  # what each wing imports


def main() -> None:
    """Puts the drawing of today's imports in place of the one that is there."""
    drawing = draw_wings(read_wings())
    _DOCUMENT.write_text(_DRAWING.sub(lambda _: drawing, _DOCUMENT.read_text()))


def read_wings() -> Wings:
    """Reads the imports of every module of this project."""
    graph = grimp.build_graph("iorec", "analyze")
    modules = graph.modules - {"iorec", "analyze"}  # they have but the version and public names
    folders = {name.rpartition(".")[0] for name in modules if name.count(".") == 2}
    folders.add("analyze.capture")
    wings: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        wing = _wing_of(module, folders)
        imported = graph.find_modules_directly_imported_by(module) & modules
        wings[wing] |= {_wing_of(name, folders) for name in imported} - {wing}
    return wings


def floors_of(wings: Wings) -> list[list[str]]:
    """The wings from the top down, each on the lowest floor above all that it imports.

    Raises graphlib.CycleError if wings import each other.
    """
    heights: dict[str, int] = {}
    for wing in TopologicalSorter(wings).static_order():
        heights[wing] = 1 + max((heights[below] for below in wings[wing]), default=-1)
    return [
        sorted(wing for wing in wings if heights[wing] == height)
        for height in sorted(set(heights.values()), reverse=True)
    ]


def draw_wings(wings: Wings) -> str:
    """The drawing in Mermaid, without the arrows that others imply."""
    arrows = [
        f"    {wing} --> {below}"
        for floor in floors_of(wings)
        for wing in floor
        for below in sorted(wings[wing] - _all_below(wings, wings[wing]))
    ]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```", ""])


def _wing_of(module: str, folders: set[str]) -> str:
    root, name, *_ = [*module.split("."), ""]
    if f"{root}.{name}" not in folders or name == "commands":
        return "cli" if root == "iorec" else root
    return name if root == "iorec" else f"{root}.{name}"


def _all_below(wings: Wings, names: Iterable[str]) -> set[str]:
    return {below for name in names for below in wings[name] | _all_below(wings, wings[name])}


if __name__ == "__main__":
    main()
