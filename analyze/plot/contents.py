"""What a capture holds, in the few facts that titles, legends and messages need."""

from dataclasses import dataclass

from analyze.capture import Capture
from analyze.plot.bins import OP_INDEX, query_timed
from analyze.plot.timeline import Timeline

_MOST_DEVICES = 4


@dataclass(frozen=True)
class Contents:
    """The busiest devices out of `device_count`, and the indices of the OPS that occur."""

    io_count: int
    ops: tuple[int, ...]
    devices: tuple[str | None, ...]
    device_count: int


@dataclass(frozen=True)
class OnlyIo:
    """The one row of a capture."""

    time_ns: int
    op: str | None
    device: str | None
    offset: int | None
    size_bytes: int | None
    latency_ns: int | None
    comm: str | None
    pid: int | None


def load_contents(capture: Capture) -> Contents:
    # DuckDB groups fastest by a column as it is.
    ops = capture.sql(
        f"SELECT {OP_INDEX} AS op_index, sum(ios)::BIGINT"
        " FROM (SELECT op, count(*) AS ios FROM io GROUP BY op) GROUP BY op_index ORDER BY op_index"
    ).fetchall()
    devices = capture.sql(
        "SELECT device, count(*) OVER () FROM io GROUP BY device"
        f" ORDER BY count(*) DESC, device LIMIT {_MOST_DEVICES}"
    ).fetchall()
    return Contents(
        io_count=sum(io_count for _, io_count in ops),
        ops=tuple(op_index for op_index, _ in ops),
        devices=tuple(device for device, _ in devices),
        device_count=devices[0][1] if devices else 0,
    )


def load_only_io(capture: Capture, timeline: Timeline) -> OnlyIo:
    """To be called if the capture holds one row."""
    [row] = query_timed(
        capture,
        timeline,
        """
        SELECT $begin + start_ns, op, device, "offset", bytes, latency_ns, comm, pid FROM timed
        """,
    ).fetchall()
    return OnlyIo(*row)
