# SPDX-License-Identifier: GPL-2.0-only
"""Medians, quartiles and ratios of repeated measurements."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PAIRS = 10


@dataclass(frozen=True)
class Spread:
    """The median of some values, with the quartiles on both sides of it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"


def spread(values: Sequence[float]) -> Spread:
    """Of one value, itself three times."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, method="inclusive")
    return Spread(median, low, high)


def ratio(a: Sequence[float], b: Sequence[float]) -> Spread:
    """Of a over b, pair by pair."""
    return spread([x / y for x, y in zip(a, b, strict=True)])
