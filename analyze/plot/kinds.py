# SPDX-License-Identifier: GPL-2.0-only
"""The charts that can be asked for."""

from enum import StrEnum


class Kind(StrEnum):
    OVERVIEW = "overview"
    HEATMAP = "heatmap"
    HISTOGRAM = "histogram"
    CDF = "cdf"
    IOPS = "iops"
    THROUGHPUT = "throughput"
    DEPTH = "depth"
    OFFSET = "offset"
    PROCESSES = "processes"
