# SPDX-License-Identifier: GPL-2.0-only
"""Offline analysis of captures; it needs the file and neither root nor a Linux kernel.

import iorec

with iorec.open("run.parquet") as capture:  # the same as analyze.open
    print(capture)
    rows = capture.pandas()
    groups = capture.summary(by=["comm", "op"]).frame()
    capture.plot("heatmap").savefig("heatmap.png")
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyze.errors import IorecError

if TYPE_CHECKING:
    from analyze.capture import Capture
    from analyze.completeness import Completeness
    from analyze.metadata import Metadata
    from analyze.summary import Summary

__all__ = ["Capture", "Completeness", "IorecError", "Metadata", "Summary", "open"]

# Loaded when they are asked for: duckdb takes a tenth of a second.
_HOMES = {
    "Capture": "analyze.capture",
    "Completeness": "analyze.completeness",
    "Metadata": "analyze.metadata",
    "Summary": "analyze.summary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def open(  # noqa: A001 - as in analyze.open("run.parquet")
    *paths: str | Path,
    begin: float | str | None = None,
    end: float | str | None = None,
    where: str | None = None,
    layer: str | None = None,
) -> "Capture":
    """Opens one or more captures as one: files, globs or folders; see `open_captures`."""
    from analyze.capture import open_captures

    return open_captures(paths, begin=begin, end=end, where=where, layer=layer)
