"""Offline analysis of captures; it needs the file and neither root nor a Linux kernel.

import analyze

with analyze.open("run.parquet") as capture:
    print(capture.completeness())
    frame = capture.pandas()
    for group in capture.summary(by=["comm", "op"]).groups:
        print(group.key, group.latency.p99_ns)
"""

from pathlib import Path
from typing import TYPE_CHECKING

from analyze.errors import IorecError as IorecError

if TYPE_CHECKING:
    from analyze.capture import Capture


def open(  # noqa: A001 - as in analyze.open("run.parquet")
    *paths: str | Path,
    begin_s: float | None = None,
    end_s: float | None = None,
    where: str | None = None,
    layer: str | None = None,
) -> "Capture":
    """Opens one or more captures as one: files, globs or folders; see `open_captures`."""
    from analyze.capture import open_captures

    return open_captures(paths, begin_s=begin_s, end_s=end_s, where=where, layer=layer)
