# SPDX-License-Identifier: GPL-2.0-only
"""Builds captures of replays that never were: what was asked for, done as well as a test wants."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analyze.capture import open_captures
from analyze.sources import metadata_digest
from tests.builders import START_NS, rfc3339, table, write_capture

LEAD_NS = 50_000_000


def asked_rows(count: int = 20_000, iops: float = 2000, seed: int = 7, **columns: Any) -> pa.Table:
    """Random reads and writes at random times, of one thread."""
    rng = np.random.default_rng(seed)
    time = START_NS + np.cumsum(rng.exponential(1e9 / iops, count)).astype(np.int64)
    return table(
        count,
        **{
            "time": time,
            "op": rng.choice(["read", "write"], count),
            "offset": rng.integers(0, 1 << 15, count) * 4096,
            "latency_ns": rng.integers(80_000, 120_000, count),
            **columns,
        },
    )


def done_rows(asked: pa.Table, late_ns: Any = 0, speed: float = 1.0) -> pa.Table:
    """The same on loop1, each I/O so late; a replay begins LEAD_NS before its first one."""
    time = asked["time"].cast("int64").to_numpy()
    got = START_NS + LEAD_NS + ((time - time[0]) / speed).astype(np.int64) + late_ns
    device = pa.array(["loop1"] * len(asked)).dictionary_encode()
    place = asked.schema.get_field_index("device")
    rows = asked.set_column(place, asked.schema.field(place), device.cast(asked["device"].type))
    times = pa.array(got).cast(asked.schema.field("time").type)
    return rows.set_column(0, asked.schema.field(0), times).sort_by("time")


def replay_document(asked: pa.Table, **changed: Any) -> dict[str, Any]:
    """What the metadata of such a capture say of the replay."""
    first = int(asked["time"].cast("int64")[0].as_py())
    return {
        "source": "run.parquet",
        "source_digest": "0" * 64,
        "targets": [target_document()],
        "started_at": rfc3339(START_NS + LEAD_NS),
        "first_at": rfc3339(first),
        "loop": "open",
        "waiting_threads": 0,
        "other_threads": 0,
        "speed": 1.0,
        "think_scale": 1.0,
        "writes": "read",
        "data": "random",
        "fit": "refuse",
        "layer": None,
        "begin_s": None,
        "end_s": None,
        "where": None,
        "planned": len(asked),
        "planned_bytes": 0,
        "left_out": {},
        "moved": 0,
        "issued": len(asked),
        "added": 0,
        "completed": len(asked),
        "failed": 0,
        "errors": {},
        "short": 0,
        "ending": "whole",
        "engine": "io_uring",
        "pacer": "C",
        "ring_flags": [],
        "policy": "other",
        "depth": 120,
        "most_in_flight": 1,
        "batch": 2,
        "lateness": dict.fromkeys(("p50_ns", "p99_ns", "p999_ns", "max_ns", "over_100us"), 0),
        "starved_ns": 0,
        "verdict": None,
        "failed_lines": [],
        **changed,
    }


def target_document(**changed: Any) -> dict[str, Any]:
    """A device that was written to, loop1 for loop0."""
    return {
        "source": "loop0",
        "target": "loop1",
        "model": None,
        "serial": None,
        "size_bytes": 1 << 30,
        "source_size_bytes": 1 << 30,
        "largest_bytes": 1 << 20,
        "is_written": True,
        "source_queue": {"nr_requests": 128, "logical_block_size": 512},
        "queue": {"nr_requests": 128, "logical_block_size": 512},
        **changed,
    }


def write_pair(folder: Path, asked: pa.Table, done: pa.Table, **replay: Any) -> tuple[Path, Path]:
    """Both captures; the second says how it came to be."""
    source = write_capture(folder / "run.parquet", asked)
    with open_captures([source]) as capture:
        digest = metadata_digest(capture.files)
    document = replay_document(asked, **{"source_digest": digest, **replay})
    return source, write_capture(folder / "replayed.parquet", done, replay=document)
