# SPDX-License-Identifier: GPL-2.0-only
"""Describes rows that came without metadata, as far as the rows themselves tell."""

from pathlib import Path

from duckdb import DuckDBPyConnection

from analyze.metadata import FORMAT_VERSION, Device, Filters, Metadata
from analyze.row_query import RowSource, rows_query
from analyze.typed_json import EpochNs

_MOST_DEVICES = 10_000


def describe_rows(connection: DuckDBPyConnection, path: Path) -> Metadata:
    """Metadata without a ledger: when the rows begin and end, their layers and devices.

    They are taken to be of the newest format.
    """
    rows = rows_query([RowSource(path, FORMAT_VERSION, "")])
    [(start_ns, stop_ns)] = connection.execute(
        f"SELECT min(epoch_ns(time)), max(epoch_ns(time) + coalesce(latency_ns, 0)) FROM ({rows})"
    ).fetchall()
    places = connection.execute(
        f"SELECT DISTINCT layer, device FROM ({rows}) ORDER BY ALL LIMIT {_MOST_DEVICES}"
    ).fetchall()
    with_requests = {device for layer, device in places if layer == "request"}
    devices = sorted({device for _, device in places if device})
    return Metadata(
        format_version=FORMAT_VERSION,
        iorec_version="",
        hostname="unknown",
        kernel="",
        machine="",
        cpus=0,
        command=(),
        workload=None,
        started_at=EpochNs(start_ns or 0),
        stopped_at=EpochNs(max(stop_ns or 0, start_ns or 0)),
        duration_s=max((stop_ns or 0) - (start_ns or 0), 0) / 1e9,
        clock=None,
        filters=Filters((), (), (), (), (), None, include_self=True),
        layers=tuple(sorted({layer for layer, _ in places})),
        devices=tuple(_device(name, has_requests=name in with_requests) for name in devices),
        counts=None,
        diskstats={},
        recorder=None,
        complete=True,
    )


def _device(name: str, *, has_requests: bool) -> Device:
    return Device(
        name=name,
        major=0,
        minor=0,
        **dict.fromkeys(("model", "size_bytes", "logical_block_size", "rotational", "scheduler")),
        nr_requests=None,
        has_requests=has_requests,
        partitions=(),
        stands_on=(),
    )
