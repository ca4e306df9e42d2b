# SPDX-License-Identifier: GPL-2.0-only
"""The viewer of `iorec watch`: a line for each finished I/O."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from analyze.errnos import errno_name
from analyze.escape import escape_for_terminal
from analyze.render.table import pad, shorten
from analyze.schema import SCHEMA
from analyze.typed_json import parse_object
from analyze.units import (
    format_bytes,
    format_clock,
    format_counted,
    format_duration,
    format_rfc3339,
)
from iorec.live.form import Form
from iorec.live.viewer import follow, printing
from iorec.store.csv_rows import harmless, to_text

_GAP = " "
_LATE_NS = 1_000_000_000
_NOTHING = pa.RecordBatch.from_pylist([], SCHEMA)
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class _Field:
    """A column of text; `rank` says how early it is left out, as in analyze.render.table."""

    title: str
    width: int
    column: str
    text: Callable[[Any], str]
    rank: int = 0
    is_text: bool = False

    def cell(self, text: str) -> str:
        """The text in the width of the column."""
        return pad(text, self.width, self.is_text) if self.is_text else text.rjust(self.width)

    def padded(self, value: Any) -> str:
        """What stands there for a value."""
        return self.cell(self.text(value))


def main(fd: int, form: Form) -> None:
    """Prints what comes, until the recording ends or nobody reads any more.

    What is a second late when more has come is left out, so that the rest comes in time.
    """
    form_lines = {"text": _Table(form.width).lines, "json": _json_lines, "csv": _csv_lines}[
        form.name
    ]

    def to_lines(batch: pa.RecordBatch) -> str:
        return form_lines(batch.filter(pc.is_valid(batch["latency_ns"])))

    taken = said = 0
    with printing():
        print(_head(form), end="", flush=True)
        to_lines(_NOTHING)  # the first time takes longer
        feed = follow(fd)
        began_ns = time.monotonic_ns()  # until when nothing could be in time
        for batch, metadata in feed:
            come_ns = max(metadata.clock.stop.monotonic_ns if metadata.clock else 0, began_ns)
            is_late = time.monotonic_ns() - come_ns > _LATE_NS
            if is_late and feed.has_more and not metadata.complete:
                continue
            taken += len(batch)
            left_out = (metadata.counts.row_count if metadata.counts else 0) - taken
            if left_out > said:
                count = format_counted(left_out - said, "I/O")
                print(f"{count} left out, to be in time with the others", file=sys.stderr)
                said = left_out
            print(to_lines(batch), end="", flush=True)


def _head(form: Form) -> str:
    if form.name == "csv":
        return ",".join(f'"{name}"' for name in SCHEMA.names) + "\n"
    return _Table(form.width).head if form.name == "text" else ""


def _json_lines(batch: pa.RecordBatch) -> str:
    """Each an object with the columns of the capture format, in base units, nothing rounded."""
    columns = [
        _texts(column, _json_time if pa.types.is_timestamp(column.type) else _json)
        for column in batch.columns
    ]
    # No name of a column has a percent sign.
    form = ",".join(f'"{name}":%s' for name in batch.schema.names)
    return "".join([f"{{{form}}}\n" % row for row in zip(*columns, strict=True)])


def _csv_lines(batch: pa.RecordBatch) -> str:
    sink = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False)
    pyarrow.csv.write_csv(to_text(harmless(pa.Table.from_batches([batch]))), sink, options)
    text: bytes = sink.getvalue().to_pybytes()
    return text.decode()


class _Table:
    """Lines of text, with the columns for which there is room; that of files takes the rest."""

    def __init__(self, width: int) -> None:
        fields = [*_FIELDS]
        while sum(field.width + len(_GAP) for field in fields) - len(_GAP) > width:
            last = max(fields, key=lambda field: field.rank)
            if last.rank == 0:
                break
            fields.remove(last)
        if fields[-1].column == "file":
            before = sum(field.width + len(_GAP) for field in fields[:-1])
            text = partial(_name, width=width - before)
            fields[-1] = replace(fields[-1], width=0, text=text)
        self._fields = fields

    @property
    def head(self) -> str:
        """The line with the titles."""
        return _GAP.join(field.cell(field.title) for field in self._fields).rstrip() + "\n"

    def lines(self, batch: pa.RecordBatch) -> str:
        """A line for each row; an error stands at its end."""
        columns = [_texts(batch[field.column], field.padded) for field in self._fields]
        place = [field.column for field in self._fields].index("process")
        if batch["process"].null_count:  # of a kernel that does not tell them: that of its thread
            comms = _texts(batch["comm"], self._fields[place].padded)
            is_known = pc.is_valid(batch["process"]).to_pylist()
            columns[place] = [
                process if known else comm
                for process, comm, known in zip(columns[place], comms, is_known, strict=True)
            ]
        errors = _texts(batch["errno"], lambda errno: errno_name(errno) if errno else "")
        rows = zip(*columns, errors, strict=True)
        return "".join([f"{_GAP.join(row).rstrip()}\n" for row in rows])


def _texts(column: pa.Array, to_text: Callable[[Any], str]) -> list[str]:
    """The text for each row; of names each is made once."""
    if pa.types.is_dictionary(column.type):
        texts = [*map(to_text, column.dictionary.to_pylist()), to_text(None)]
        return [texts[place] for place in column.indices.fill_null(-1).to_pylist()]
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [to_text(value) for value in column.to_pylist()]


def _json(value: str | int | None) -> str:
    return "null" if value is None else str(value) if isinstance(value, int) else json.dumps(value)


def _json_time(time_ns: int | None) -> str:
    return "null" if time_ns is None else f'"{format_rfc3339(time_ns)}"'


def _time_of_day(time_ns: int) -> str:
    second, rest_ns = divmod(time_ns, _SECOND_NS)
    return f"{_clock(second)}.{rest_ns // 1000:06}"


@lru_cache(10)
def _clock(second: int) -> str:
    return format_clock(second * _SECOND_NS).partition(".")[0]


def _name(name: str | None, width: int = sys.maxsize) -> str:
    return "-" if name is None else shorten(escape_for_terminal(name), width)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


_FIELDS = (
    _Field("TIME (UTC)", 15, "time", _time_of_day, is_text=True),
    _Field("PROCESS", 16, "process", partial(_name, width=16), is_text=True),
    _Field("PID", 7, "pid", _number),
    _Field("OP", 11, "op", _name, is_text=True),
    _Field("DEVICE", 8, "device", _name, is_text=True),
    _Field("OFFSET", 14, "offset", _number, rank=3),
    _Field("SIZE", 8, "bytes", lru_cache(format_bytes)),
    _Field("LATENCY", 7, "latency_ns", format_duration),
    _Field("QUEUED", 7, "queue_ns", format_duration, rank=4),
    _Field("FILE", 16, "file", _name, rank=2, is_text=True),
)

if __name__ == "__main__":
    main(int(sys.argv[1]), parse_object(Form, json.loads(sys.argv[2])))
