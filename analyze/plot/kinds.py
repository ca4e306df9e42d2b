# SPDX-License-Identifier: GPL-2.0-only
"""The charts that can be asked for, and whose I/O they can tell apart."""

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


class By(StrEnum):
    PROCESS = "process"
    DEVICE = "device"
    FILE = "file"
    CGROUP = "cgroup"
