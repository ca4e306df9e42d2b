# SPDX-License-Identifier: GPL-2.0-only
"""A finding: what a rule says of a capture."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What stands out, of which device and which process if it is one's.

    `id` is the rule's name and never changes. `weight` is the part of the device's time, I/Os or
    length of recording that it concerns, from 0 to 1: the heaviest is shown first. `where` selects
    the rows that show it, as a condition for --where, from `begin_s` to `end_s`.
    """

    id: str
    confidence: str  # high, medium or low
    text: str
    device: str
    pid: int | None
    process: str | None
    weight: float
    where: str
    begin_s: float | None = None
    end_s: float | None = None
