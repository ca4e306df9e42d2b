# SPDX-License-Identifier: GPL-2.0-only
"""Makes data frames of Arrow tables, in libraries that iorec itself does without."""

import importlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analyze.errors import IorecError

if TYPE_CHECKING:
    import polars


def to_pandas(table: pa.Table) -> Any:
    """A pandas data frame; without pandas an IorecError.

    Names are categories and whole numbers Int64, Int32 or Int16, so that unknown is <NA>.
    """
    pandas = _library("pandas")
    integers = {
        pa.int64(): pandas.Int64Dtype(),
        pa.int32(): pandas.Int32Dtype(),
        pa.int16(): pandas.Int16Dtype(),
    }
    return table.to_pandas(types_mapper=integers.get)


def to_polars(table: pa.Table) -> "polars.DataFrame":
    """A polars data frame; without polars an IorecError."""
    frame: polars.DataFrame = _library("polars").from_arrow(table)
    return frame


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise IorecError(f"{name} is not installed", f"pip install {name}") from error
