# SPDX-License-Identifier: GPL-2.0-only
"""Splits the time of bios by the request that each became, of captures that have both layers."""

from dataclasses import dataclass
from typing import Any

from analyze.errors import IorecError
from analyze.opened import OpenedRows

# A bio is known to be a request of its own by where it goes; merged and split ones are not. The
# last one before the request is it, if that also ended first: of two at one place in flight at a
# time, the kernel may have taken either. Numbers join four times as fast as names.
_PLACE = 'hash(host, device, op) AS part, "offset", bytes, epoch_ns(time) AS time_ns, latency_ns'
_QUERY = f"""
    WITH requests AS (
        SELECT {_PLACE}, queue_ns FROM io
        WHERE layer = 'request' AND bios = 1 AND errno = 0 AND queue_ns IS NOT NULL
    ), placed AS (
        SELECT {_PLACE} FROM bios WHERE "offset" IS NOT NULL
    ), split AS (
        SELECT bio.part, bio.latency_ns AS bio_ns, request.time_ns - bio.time_ns AS before_ns,
            request.queue_ns, request.latency_ns - request.queue_ns AS device_ns,
            bio_ns - before_ns - request.latency_ns AS after_ns
        FROM requests AS request ASOF JOIN placed AS bio
            ON request.part = bio.part AND request."offset" = bio."offset"
            AND request.bytes = bio.bytes AND request.time_ns >= bio.time_ns
    ), found AS (
        SELECT part, count(*) AS own_requests, sum(bio_ns)::BIGINT AS own_ns,
            sum(before_ns)::BIGINT AS before_ns, sum(queue_ns)::BIGINT AS queue_ns,
            sum(device_ns)::BIGINT AS device_ns, sum(after_ns)::BIGINT AS after_ns
        FROM split WHERE after_ns >= 0 GROUP BY part
    ), everything AS (
        SELECT hash(host, device, op) AS part, host, device, op, count(*) AS bios,
            sum(latency_ns)::BIGINT AS time_ns
        FROM bios GROUP BY ALL
    )
    SELECT {{device}} AS device, op, bios, time_ns, own_requests, own_ns, before_ns, queue_ns,
        device_ns, after_ns
    FROM everything JOIN found USING (part) ORDER BY time_ns DESC, device, op
"""


@dataclass(frozen=True)
class BioTime:
    """Where the time of the bios of a device and op went that became a request of their own.

    `own_ns`, the latency of those `own_requests` bios, is the sum of the waits: `before_ns` for a
    request, `queue_ns` in the scheduler and until the driver took it, `device_ns` in the device,
    and `after_ns` for the end of the bio. The shares are of it. `bios` and `time_ns` are of all
    bios that succeeded, `own_share` is the part of them that became a request of their own.
    """

    device: str
    op: str
    bios: int
    time_ns: int
    own_requests: int
    own_ns: int
    before_ns: int
    queue_ns: int
    device_ns: int
    after_ns: int
    own_share: float
    avg_ns: float  # of those bios
    before_share: float | None
    queue_share: float | None
    device_share: float | None
    after_share: float | None


def load_bio_times(capture: OpenedRows) -> tuple[BioTime, ...]:
    """The device and op with the longest time first; raises IorecError without both layers."""
    if not any({"request", "bio"} <= {*file.metadata.layers} for file in capture.files):
        raise IorecError(
            "cannot show both layers: the capture has only one",
            "record both: iorec record --layer request,bio",
        )
    rows = capture.records(_QUERY.format(device=capture.named("device")))
    return tuple(_make_bio_time(**row) for row in rows)


def _make_bio_time(**sums: Any) -> BioTime:
    own_ns, parts = sums["own_ns"], ("before", "queue", "device", "after")
    shares: dict[str, Any] = {
        f"{part}_share": sums[f"{part}_ns"] / own_ns if own_ns else None for part in parts
    }
    shares["own_share"] = sums["own_requests"] / sums["bios"]
    return BioTime(avg_ns=own_ns / sums["own_requests"], **sums, **shares)
