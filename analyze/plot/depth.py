# SPDX-License-Identifier: GPL-2.0-only
"""How many I/Os were in flight over time."""

import numpy as np

from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot.bins import OPS, Cells, Series, add_up, make_series, query_timed
from analyze.plot.timeline import Timeline


def load_depth(capture: OpenedRows, timeline: Timeline) -> Series:
    """Mean I/Os in flight per bin: the overlap of all I/Os with the bin over the bin's width.

    The sum over all bins, times the width, is the time that all I/Os spent inside the window.
    An I/O from before the window's begin is not among its rows, so not in the depth either.
    """
    cells = query_timed(
        capture,
        timeline,
        """
        SELECT op_index, start_bin, stop_bin, count(*) AS ios,
            sum(start_ns)::DOUBLE AS start_ns, sum(stop_ns)::DOUBLE AS stop_ns
        FROM timed GROUP BY ALL
        """,
    ).fetchnumpy()
    return make_series(
        np.maximum(_since(cells, "start", timeline) - _since(cells, "stop", timeline), 0)
    )


def _since(cells: Cells, event: str, timeline: Timeline) -> FloatArray:
    """Mean number of I/Os for which the event has happened: partly in its bin, then wholly."""
    shape = (len(OPS), timeline.bin_count)
    keys = (cells["op_index"], cells[f"{event}_bin"])
    ios = add_up(shape, keys, cells["ios"])
    bins_before = ios * np.arange(timeline.bin_count)
    into_bin = add_up(shape, keys, cells[f"{event}_ns"]) / timeline.width_ns - bins_before
    since: FloatArray = np.cumsum(ios, axis=1) - into_bin
    return since
