# SPDX-License-Identifier: GPL-2.0-only
"""What the converter writes is read by other programs as the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analyze.capture_name import CaptureName
from analyze.schema import SCHEMA
from iorec.store.convert import convert
from iorec.store.folder import Folder
from tests.builders import START_NS, described, table
from tests.recorded import RowSpool

# More than a row group.
ROWS = 150_001
INTEGERS = [field.name for field in SCHEMA if pa.types.is_integer(field.type)]
SECOND_NS = 1_000_000_000


def rows() -> pa.Table:
    """Rows with what codecs trip over: long pauses, large values and steps, and nulls."""
    rng = np.random.default_rng(1)
    steps = rng.integers(1, 100_000, ROWS)
    steps[:: ROWS // 7] += np.array([1, 2, 3, 5, 60, 3600, 86400, 1], np.int64) * SECOND_NS
    latency = [int(n) for n in rng.lognormal(12, 4, ROWS)]
    is_hung = rng.random(ROWS) < 0.01
    is_flush = rng.random(ROWS) < 0.05
    offsets = rng.integers(0, 1 << 32, ROWS) * 512

    def unless(is_null: Any, values: Any) -> list[int | None]:
        return [None if null else int(v) for null, v in zip(is_null, values, strict=True)]

    return table(
        ROWS,
        time=START_NS + np.cumsum(steps),
        op=np.where(is_flush, "flush", "read"),
        offset=unless(is_flush, offsets),
        bytes=np.where(is_flush, 0, rng.integers(1, 1 << 20, ROWS) * 512),
        latency_ns=unless(is_hung, latency),
        queue_ns=unless(is_hung, np.array(latency) // 3),
        errno=unless(is_hung, rng.choice([0, 5, 121], ROWS)),
        pid=rng.integers(1, 1 << 22, ROWS),
        cpu=rng.integers(0, 1 << 10, ROWS),
        bios=unless(is_hung, rng.integers(1, 256, ROWS)),
        inode=unless(is_flush, rng.integers(1, 1 << 45, ROWS)),
        file=np.where(is_flush, "", "/srv/é/data"),
    )


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows through spool and converter, as a recording writes them."""
    folder_path = tmp_path_factory.mktemp("captures")
    written = rows()
    with (folder_path / "run.parquet.part").open("w+b") as file:
        spool = RowSpool(file)
        for batch in written.unify_dictionaries().to_batches(max_chunksize=20_000):
            spool.write_rows(batch.cast(SCHEMA), described(written))
        spool.close()
        name = CaptureName(folder_path / "run.parquet")
        with Folder.open(folder_path, None) as folder:
            convert(file, folder, name, lambda _: None, is_forced=False)
    return folder_path / "run.parquet"


def of_arrow(found: pa.Table) -> dict[str, Any]:
    columns = {name: found[name].to_pylist() for name in INTEGERS}
    time = found["time"].cast("int64").to_pylist()
    return summary(len(found), columns, (min(time), max(time)))


def of_pandas(found: pd.DataFrame) -> dict[str, Any]:
    columns = {name: found[name].astype("Int64").dropna().tolist() for name in INTEGERS}
    time = found["time"].astype("int64")  # in fastparquet without the zone
    return summary(len(found), columns, (int(time.min()), int(time.max())))


def of_polars(found: pl.DataFrame) -> dict[str, Any]:
    columns = {name: found[name].to_list() for name in INTEGERS}
    time = found["time"].to_physical()
    return summary(len(found), columns, (time.min(), time.max()))


def of_duckdb(path: Path) -> dict[str, Any]:
    sums = ", ".join(f'count("{name}"), sum("{name}")::HUGEINT' for name in INTEGERS)
    query = f"SELECT count(*), min(epoch_ns(time)), max(epoch_ns(time)), {sums} FROM '{path}'"
    [(count, first, last, *found)] = duckdb.execute(query).fetchall()
    pairs = zip(found[::2], found[1::2], strict=True)
    return {"rows": count, "time": (first, last), **dict(zip(INTEGERS, pairs, strict=True))}


def summary(count: int, columns: dict[str, list[Any]], time: tuple[Any, Any]) -> dict[str, Any]:
    """Count and sum of each column's values."""
    known = {name: [v for v in column if v is not None] for name, column in columns.items()}
    sums = {name: (len(values), sum(map(int, values)) or None) for name, values in known.items()}
    return {"rows": count, "time": time, **sums}


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "pyarrow": lambda path: of_arrow(pq.read_table(path)),
    "duckdb": of_duckdb,
    "polars": lambda path: of_polars(pl.read_parquet(path)),
    "pandas with pyarrow": lambda path: of_pandas(
        pd.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    ),
    "pandas with fastparquet": lambda path: of_pandas(pd.read_parquet(path, engine="fastparquet")),
    "fastparquet": lambda path: of_pandas(fastparquet.ParquetFile(str(path)).to_pandas()),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_the_numbers_that_were_recorded(capture: Path, reader: str) -> None:
    assert READERS[reader](capture) == of_arrow(rows())


def test_every_column_is_encoded_as_all_readers_know_it(capture: Path) -> None:
    found = pq.read_metadata(capture)
    encodings = {
        encoding
        for group in range(found.num_row_groups)
        for column in range(found.num_columns)
        for encoding in found.row_group(group).column(column).encodings
    }
    assert found.num_row_groups == 2
    assert encodings <= {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}
