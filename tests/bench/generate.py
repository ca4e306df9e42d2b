# SPDX-License-Identifier: GPL-2.0-only
"""Scales a real capture up: its rows again and again, one copy behind the other in time."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from analyze.metadata import Metadata, parse_metadata
from analyze.schema import METADATA_KEY, SCHEMA
from analyze.typed_json import dump_object
from analyze.units import format_rfc3339
from tests.recorded import RowSpool, batches_of

SAMPLE = Path(__file__).parent.parent.parent / "samples/postgres-pgbench.parquet"


def sample_metadata() -> Metadata:
    """What a real capture says of itself."""
    return parse_metadata(pq.read_metadata(SAMPLE).metadata[METADATA_KEY])


def write_spool(path: Path, row_count: int) -> int:
    """Writes the spool of a recording of at least so many I/Os; returns how many they are."""
    sample = pq.read_table(SAMPLE, schema=SCHEMA).combine_chunks()
    copies = -(-row_count // len(sample))
    described = sample_metadata()
    length_ns = described.stopped_at - described.started_at
    document = json.loads(dump_object(described))
    longer = document | {
        "stopped_at": format_rfc3339(described.started_at + copies * length_ns),
        "duration_s": copies * described.duration_s,
        "counts": _times(document["counts"], copies),
        "diskstats": _times(document["diskstats"], copies),
    }
    metadata = parse_metadata(json.dumps(longer).encode())
    with path.open("wb") as file:
        spool = RowSpool(file)
        batches = [(batch, batch.records["start_ns"].copy()) for batch in batches_of(sample)]
        for copy in range(copies):
            for batch, start_ns in batches:
                batch.records["start_ns"] = start_ns + copy * length_ns
                spool.write(batch, metadata)
        spool.close()
    return copies * len(sample)


def _times(value: Any, factor: int) -> Any:
    """Every number in it multiplied."""
    if isinstance(value, dict):
        return {name: _times(part, factor) for name, part in value.items()}
    if isinstance(value, list):
        return [_times(part, factor) for part in value]
    return value * factor if isinstance(value, int) else value
