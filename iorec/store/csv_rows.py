# SPDX-License-Identifier: GPL-2.0-only
"""Makes text of rows, as CSV has it."""

import pyarrow as pa
import pyarrow.compute as pc

from analyze.schema import SCHEMA

_FORMULA_START = r"^[=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"


def _csv_field(field: pa.Field) -> pa.Field:
    is_number = pa.types.is_integer(field.type)
    return field if is_number else field.with_type(pa.string())


CSV_SCHEMA = pa.schema([_csv_field(SCHEMA.field(name)) for name in SCHEMA.names])


def harmless(table: pa.Table) -> pa.Table:
    """Rows of the capture format; a name that a spreadsheet would run gets a quote in front."""
    return pa.table([_neutralised(column) for column in table.columns], SCHEMA)


def to_text(table: pa.Table) -> pa.Table:
    """The same rows with the columns of CSV_SCHEMA."""
    columns = [_csv_column(column) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=CSV_SCHEMA)


def _csv_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_dictionary(column.type):
        return pa.chunked_array(
            [chunk.dictionary.take(chunk.indices) for chunk in column.chunks], pa.string()
        )
    return column


def _neutralised(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array(
        [
            pa.DictionaryArray.from_arrays(
                chunk.indices,
                pc.replace_substring_regex(chunk.dictionary, f"({_FORMULA_START}|^')", r"'\1"),
            )
            for chunk in column.chunks
        ],
        column.type,
    )
