# SPDX-License-Identifier: GPL-2.0-only
"""The charts that can be asked for, and whose I/O they can tell apart."""

from enum import StrEnum
from typing import NoReturn

from analyze.errors import unknown_name


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
    TIMELINE = "timeline"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise unknown_name("draw", str(value), cls)


class By(StrEnum):
    PROCESS = "process"
    DEVICE = "device"
    FILE = "file"
    CGROUP = "cgroup"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise unknown_name("draw by", str(value), cls)
