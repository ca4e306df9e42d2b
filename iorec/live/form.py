# SPDX-License-Identifier: GPL-2.0-only
"""What viewers are told: imported before privileges are dropped, so it may start no thread."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """How lines look: `text` for so many columns of a terminal, `json` or `csv`."""

    name: str
    width: int


@dataclass(frozen=True)
class TopForm:
    """What `iorec top` shows: the `top` groups by these keys, in an order, of each interval.

    For so many columns of a terminal; after `count` intervals, if it is not 0, it ends. Requests go
    to a socket, if there is one.
    """

    by: tuple[str, ...]
    sort: str
    top: int
    interval_ns: int
    count: int
    width: int
    requests_fd: int | None = None


@dataclass(frozen=True)
class Serving:
    """Metrics are served on a socket that listens, by cgroup, too, or not."""

    listen_fd: int
    by_cgroup: bool
