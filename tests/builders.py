# SPDX-License-Identifier: GPL-2.0-only
"""Builds small valid captures from a few columns, ledger and diskstats agreeing with the rows."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from analyze.metadata import (
    FORMAT_VERSION,
    Clock,
    ClockReading,
    Counts,
    Device,
    DeviceCounts,
    Diskstats,
    Filters,
    Metadata,
    Recorder,
)
from analyze.schema import LOSS_CAUSES, METADATA_KEY, SCHEMA
from analyze.typed_json import EpochNs, dump_object

START_NS = 1_795_293_167_000_000_000  # 2026-11-21 20:32:47 UTC
SECOND_NS = 1_000_000_000

_DEFAULTS: dict[str, Any] = {
    "layer": "request",
    "op": "read",
    "flags": "",
    "device": "loop0",
    "partition": None,
    "bytes": 4096,
    "latency_ns": 100_000,
    "queue_ns": 10_000,
    "errno": 0,
    "pid": 1000,
    "tid": 1000,
    "comm": "fio",
    "cgroup": "/user.slice",
    "cpu": 0,
}
_DISKSTATS_GROUPS = ("read", "write", "discard", "flush")


def table(count: int, **columns: Any) -> pa.Table:
    """`count` rows, one each millisecond from START_NS; a column is one value or `count` values."""
    index = np.arange(count, dtype=np.int64)
    columns = {
        **dict.fromkeys(SCHEMA.names),
        **_DEFAULTS,
        "time": START_NS + index * 1_000_000,
        "offset": index * 4096,
        **columns,
    }
    return pa.table([_column(field, columns[field.name], count) for field in SCHEMA], schema=SCHEMA)


def mixed_table(count: int, seed: int = 1, seconds: float = 10.0) -> pa.Table:
    """Reads, writes and flushes of several processes on two devices, in time order."""
    rng = np.random.default_rng(seed)
    process = rng.choice(4, count, p=[0.5, 0.3, 0.15, 0.05])
    op = rng.choice(["read", "write", "flush"], count, p=[0.6, 0.35, 0.05])
    latency_ns = rng.lognormal(np.log(200_000), 1.2, count).astype(np.int64)
    is_flush = op == "flush"
    return table(
        count,
        time=START_NS + np.sort(rng.uniform(0, seconds * SECOND_NS, count)).astype(np.int64),
        op=op,
        flags=np.where(op == "read", "", "sync"),
        device=rng.choice(["nvme0n1", "sda"], count, p=[0.8, 0.2]),
        offset=[
            None if flush else int(place)
            for flush, place in zip(is_flush, rng.integers(0, 1 << 18, count) * 4096, strict=True)
        ],
        bytes=np.where(is_flush, 0, rng.choice([4096, 16384, 131072], count)),
        latency_ns=latency_ns,
        queue_ns=latency_ns // 5,
        pid=1000 + process,
        tid=1000 + process,
        comm=np.array(["postgres", "fio", "kworker/u8:3", "systemd-journal"])[process],
        cpu=rng.integers(0, 2, count),
    )


def described(rows: pa.Table) -> Metadata:
    """The metadata of a recording that lost nothing."""
    stop_ns = max(pc.max(rows["time"]).value + 1 if len(rows) else 0, START_NS + SECOND_NS)
    devices = sorted(set(rows["device"].drop_null().to_pylist()))
    ledger = tuple(entry for device in devices for entry in _ledger_entries(rows, device))
    in_flight = rows["latency_ns"].null_count
    recorded = len(rows) - in_flight
    return Metadata(
        format_version=FORMAT_VERSION,
        iorec_version="0.1.0",
        hostname="db1",
        kernel="6.18.44",
        machine="x86_64",
        cpus=2,
        command=("iorec", "record", "-o", "run.parquet"),
        workload=None,
        started_at=EpochNs(START_NS),
        stopped_at=EpochNs(stop_ns),
        duration_s=(stop_ns - START_NS) / SECOND_NS,
        clock=Clock(
            ClockReading(SECOND_NS, START_NS),
            ClockReading(SECOND_NS + stop_ns - START_NS, stop_ns),
            steps=(),
        ),
        filters=Filters((), (), (), (), (), None, include_self=False),
        layers=tuple(sorted(set(rows["layer"].to_pylist()))) or ("request",),
        devices=tuple(_device(number, name) for number, name in enumerate(devices)),
        counts=Counts(
            completions=recorded,
            recorded=recorded,
            filtered=0,
            began_before=0,
            continuations=0,
            merged=0,
            in_flight_at_start=0,
            in_flight_at_stop=in_flight,
            lost=dict.fromkeys(LOSS_CAUSES, 0),
            gaps=(),
            devices=ledger,
        ),
        diskstats={
            device: {group: _diskstats(ledger, device, group) for group in _DISKSTATS_GROUPS}
            for device in devices
        },
        recorder=Recorder(0.25, 0.125, 120 << 20, 16 << 20),
        complete=True,
    )


def metadata(rows: pa.Table, **overrides: Any) -> dict[str, Any]:
    """The same as a JSON object, right or wrong; `overrides` are merged in, dicts deeply."""
    return _merged(json.loads(dump_object(described(rows))), overrides)


def write_capture(path: Path, rows: pa.Table | None = None, **overrides: Any) -> Path:
    """Writes `rows` (by default 1,009 mixed ones) to a .parquet, .csv or .csv.gz capture."""
    rows = mixed_table(1009) if rows is None else rows
    document = json.dumps(metadata(rows, **overrides)).encode()
    if path.suffix == ".parquet":
        write_parquet(path, rows, document)
    else:
        _write_csv(path, rows)
        path.with_name(path.name.split(".csv")[0] + ".meta.json").write_bytes(document)
    return path


def write_parquet(path: Path, rows: pa.Table, document: bytes | None) -> Path:
    """Writes any table with any bytes as its metadata, or none; row groups of 256 Ki rows."""
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        writer.write_table(rows, row_group_size=1 << 18)
        if document is not None:
            writer.add_key_value_metadata({METADATA_KEY: document})
    return path


def write_spool(
    path: Path,
    batches: Sequence[pa.RecordBatch],
    document: bytes | None = None,
    compression: str | None = "zstd",
) -> Path:
    """Writes any batches to an Arrow stream, as the recorder does; without its end."""
    rows = table(len(batches) or 1)
    document = document or dump_object(replace(described(rows), complete=False))
    schema = batches[0].schema if batches else SCHEMA
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with path.open("wb") as file:
        writer = pa.ipc.new_stream(file, schema, options=options)
        for batch in batches:
            writer.write_batch(batch, {METADATA_KEY: document})
    return path


def rfc3339(time_ns: int) -> str:
    """A wall clock time as the metadata holds it."""
    seconds, nanoseconds = divmod(time_ns, SECOND_NS)
    return f"{np.datetime64(seconds, 's')}.{nanoseconds:09d}Z"


def _column(field: pa.Field, values: Any, count: int) -> pa.Array:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        values = [values] * count
    if pa.types.is_dictionary(field.type):
        return pa.array(values, pa.string()).dictionary_encode().cast(field.type)
    return pa.array(values).cast(field.type)


def _ledger_entries(rows: pa.Table, device: str) -> Iterator[DeviceCounts]:
    done = rows.filter(pc.and_(pc.equal(rows["device"], device), pc.is_valid(rows["latency_ns"])))
    groups = [_diskstats_group(op) for op in done["op"].to_pylist()]
    for layer in sorted(set(done["layer"].to_pylist())):
        for group in sorted(set(groups)):
            mask = pc.and_(
                pc.equal(done["layer"], layer), pa.array([name == group for name in groups])
            )
            found = done.filter(mask)
            yield DeviceCounts(
                layer=layer,
                device=device,
                op=group,
                recorded=len(found),
                recorded_bytes=pc.sum(found["bytes"]).as_py() or 0,
                filtered=0,
                filtered_bytes=0,
                lost=0,
                lost_bytes=0,
                began_before=0,
                began_before_bytes=0,
            )


def _diskstats_group(op: str) -> str:
    groups = {"read": "read", "discard": "discard", "cache_flush": "flush", "driver": "other"}
    return groups.get(op, "write")


def _diskstats(ledger: Sequence[DeviceCounts], device: str, group: str) -> Diskstats:
    found = [
        entry
        for entry in ledger
        if (entry.layer, entry.device, entry.op) == ("request", device, group)
    ]
    return Diskstats(
        ios=sum(entry.recorded for entry in found),
        bytes=sum(entry.recorded_bytes for entry in found),
        edge_ios=0,
        edge_bytes=0,
    )


def _device(number: int, name: str) -> Device:
    return Device(
        name=name,
        major=259,
        minor=number,
        model=None,
        size_bytes=1 << 30,
        logical_block_size=512,
        rotational=False,
        scheduler="none",
        nr_requests=128,
        partitions=(),
        stands_on=(),
    )


def _merged(base: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.copy(base)
    for key, value in overrides.items():
        is_deep = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if is_deep else value
    return merged


def _write_csv(path: Path, rows: pa.Table) -> None:
    columns = []
    for field, column in zip(SCHEMA, rows.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            column = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
        elif pa.types.is_dictionary(field.type):
            column = pc.replace_substring_regex(
                column.cast(pa.string()), r"^([=+\-@\t\r'])", r"'\1"
            )
        columns.append(column)
    with pa.output_stream(path, compression="detect") as sink:
        pyarrow.csv.write_csv(pa.table(columns, names=SCHEMA.names), sink)
