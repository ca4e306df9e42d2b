# SPDX-License-Identifier: GPL-2.0-only
"""Feeds damaged captures and spools to every reader; each gives a result or one IorecError.

Run by `make fuzz`; what fails is kept in tests/fuzz/found, and runs again if given as an argument.
"""

import io
import json
import random
import struct
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["analyze", "iorec"]):
    import analyze
    from analyze.capture_name import CaptureName
    from analyze.errors import IorecError
    from analyze.groupings import GROUPINGS
    from analyze.info import make_info
    from analyze.metadata import parse_metadata
    from analyze.plot.figure import draw
    from analyze.plot.kinds import Kind
    from analyze.render.info import render_info
    from analyze.render.json import render_json
    from analyze.render.report import render_text
    from analyze.report import make_report
    from analyze.schema import METADATA_KEY, SCHEMA
    from iorec.outcome import format_end
    from iorec.store.convert import convert
    from iorec.store.folder import Folder
    from iorec.store.frames import frame, read_frame
    from iorec.store.result import Result
    from tests.recorded import RowSpool

SAMPLES = Path(__file__).parents[2] / "samples"
PARQUET_MAGIC, STREAM_MAGIC, SPOOL_MAGIC = b"PAR1", b"\xff\xff\xff\xff", b"iorc"
_EXTREMES = [0, 1, -1, 0x7F, 0x80, 0xFF, 1 << 20, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
_VALUES: list[Any] = [None, True, -1, 2**63, 2**64, 1e308, "", "\ud800", "\x1b[0m", [], {}]
_VALUES += [[[]], {"": 0}]


def run_readers(folder: Path, content: bytes) -> None:
    """What `iorec recover`, `info`, `report` and `plot` do with a file."""
    if not content.startswith((STREAM_MAGIC, SPOOL_MAGIC)):
        capture = folder / "run.parquet"
        capture.write_bytes(content)
        read(capture)
        return
    name = "run" + random.Random(len(content)).choice([".parquet", ".csv"])
    with Folder.open(folder, None) as opened:
        named = CaptureName(Path(name))
        metadata = convert(io.BytesIO(content), opened, named, lambda _: None, is_forced=True)
        format_end(Result(folder / name, opened.size_bytes(name), metadata, None))
    read(folder / name)


def read(path: Path) -> None:
    choice = random.Random(path.stat().st_size)
    with analyze.open(path) as capture:
        render_info(make_info(capture), 80)
        if choice.random() < 0.5:
            draw(capture, choice.choice(list(Kind)))
        else:
            report = make_report(capture, [choice.choice(list(GROUPINGS))], histogram=True)
            render_text(report, 80)
            render_json(report)


def mutate(content: bytes, max_size: int, seed: int) -> bytes:
    """Changes one part that a reader looks at, and keeps what leads there."""
    choice = random.Random(seed)
    of_stream = [mutate_message, mutate_order, mutate_batch]
    of_capture = [mutate_described, mutate_footer, mutate_pages, mutate_rows]
    if content.startswith(SPOOL_MAGIC):
        changes = [mutate_frame]
    else:
        changes = of_stream if content.startswith(STREAM_MAGIC) else of_capture
    try:
        changed = choice.choice(changes)(content, choice)
    except (pa.ArrowException, OSError, EOFError, ValueError, LookupError, struct.error):
        changed = atheris.Mutate(content, max_size)
    return bytes(changed[:max_size])


def mutate_described(content: bytes, choice: random.Random) -> bytes:
    rows = pq.read_table(io.BytesIO(content))
    return parquet(rows, json.dumps(mutate_json(described(content), choice)).encode())


def mutate_rows(content: bytes, choice: random.Random) -> bytes:
    rows = pq.read_table(io.BytesIO(content))
    return parquet(mutate_column(rows, choice), json.dumps(described(content)).encode())


def mutate_footer(content: bytes, choice: random.Random) -> bytes:
    (size,) = struct.unpack("<I", content[-8:-4])
    footer = mutate_bytes(content[-8 - size : -8], choice)
    return content[: -8 - size] + footer + struct.pack("<I", len(footer)) + PARQUET_MAGIC


def mutate_pages(content: bytes, choice: random.Random) -> bytes:
    (size,) = struct.unpack("<I", content[-8:-4])
    return mutate_bytes(content[: -8 - size], choice, keep_length=True) + content[-8 - size :]


def mutate_frame(content: bytes, choice: random.Random) -> bytes:
    """Changes what one frame of a spool holds, packed or not, drops it or doubles it."""
    file = io.BytesIO(content)
    frames = []
    while file.tell() < len(content):
        frames.append(read_frame(file, len(content)))
    index = choice.randrange(len(frames))
    kind, inside = frames[index]
    if choice.random() < 0.1:
        frames[index : index + 1] = choice.choice([[], [frames[index]] * 2])
    elif kind in (b"name", b"meta") and choice.random() < 0.8:
        unpacked = pa.CompressedInputStream(pa.BufferReader(inside), "zstd").read()
        if kind == b"name":
            unpacked = mutate_bytes(unpacked, choice)
        else:
            unpacked = json.dumps(mutate_json(json.loads(unpacked), choice)).encode()
        frames[index] = kind, pa.compress(unpacked, "zstd", asbytes=True)
    elif kind == SPOOL_MAGIC:
        frames[index] = kind, json.dumps(mutate_json(json.loads(inside), choice)).encode()
    else:
        frames[index] = kind, mutate_bytes(inside, choice)
    return b"".join(frame(*one) for one in frames)


def mutate_message(content: bytes, choice: random.Random) -> bytes:
    """Changes the header or the body of one message of a stream."""
    parts = split(content)
    index = choice.randrange(len(parts))
    header, body = parts[index]
    if body and choice.random() < 0.4:
        body = mutate_bytes(body, choice, keep_length=True)
    else:
        header = mutate_bytes(header, choice, keep_length=True)
    parts[index] = header, body
    return b"".join(header + body for header, body in parts)


def mutate_order(content: bytes, choice: random.Random) -> bytes:
    """Drops, doubles or swaps messages, or cuts the stream off."""
    parts = [header + body for header, body in split(content)]
    place, other = choice.randrange(1, len(parts)), choice.randrange(1, len(parts))
    action = choice.randrange(4)
    if action == 0:
        del parts[place]
    elif action == 1:
        parts.insert(place, parts[other])
    elif action == 2:
        parts[place], parts[other] = parts[other], parts[place]
    whole = b"".join(parts)
    return whole[: choice.randrange(len(whole))] if action == 3 else whole


def mutate_batch(content: bytes, choice: random.Random) -> bytes:
    """Rewrites the batches with one column or one metadata changed."""
    reader = pa.ipc.open_stream(content)
    batches = []
    while True:
        try:
            batch, custom = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append((pa.Table.from_batches([batch]), json.loads(custom[METADATA_KEY])))
    index = choice.randrange(len(batches))
    rows, metadata = batches[index]
    if choice.random() < 0.5:
        rows = mutate_column(rows, choice)
    else:
        metadata = mutate_json(metadata, choice)
    batches[index] = rows, metadata
    return stream(batches, choice.choice(["zstd", "lz4", None]))


def mutate_column(rows: pa.Table, choice: random.Random) -> pa.Table:
    """Other values, nulls or another type in one column."""
    place = choice.randrange(rows.num_columns)
    field, column = rows.schema.field(place), rows.column(place)
    values = column.to_pylist() if not pa.types.is_timestamp(field.type) else [0] * len(rows)
    names = ["", "x" * 5000, "\x1b]0;\x07", "=1+1", "\0", "\u202e", None]
    for _ in range(choice.choice([1, 1, 5])):
        value = choice.choice(names if pa.types.is_dictionary(field.type) else [*_EXTREMES, None])
        values[choice.randrange(len(values))] = value
    if pa.types.is_dictionary(field.type):
        changed = pa.array(values, pa.string()).dictionary_encode()
    else:
        changed = pa.array(values, pa.int64()).cast(field.type, safe=False)
    if choice.random() < 0.1:
        other = choice.choice(list(SCHEMA)).type
        changed = changed.cast(other, safe=False)
    return rows.set_column(place, pa.field(field.name, changed.type), changed)


def mutate_json(document: Any, choice: random.Random) -> Any:
    """Replaces, drops or multiplies one value somewhere in the document."""
    parents = [document]
    for parent in parents:
        parts = parent.values() if isinstance(parent, dict) else parent
        parents.extend(part for part in parts if isinstance(part, dict | list) and part)
    node = choice.choice(parents)
    key = choice.choice(list(node) if isinstance(node, dict) else range(len(node)))
    if choice.random() < 0.1:
        del node[key]
    elif isinstance(node, list) and choice.random() < 0.3:
        node[:] = node * choice.choice([2, 50])
    elif isinstance(node[key], int) and choice.random() < 0.5:
        node[key] = choice.choice([*_EXTREMES, node[key] + 1, -node[key]])
    else:
        node[key] = choice.choice(_VALUES)
    return document


def mutate_bytes(part: bytes, choice: random.Random, *, keep_length: bool = False) -> bytes:
    changed = bytearray(part)
    for _ in range(choice.choice([1, 1, 2, 8])):
        place = choice.randrange(len(changed))
        action = choice.randrange(4 if keep_length else 5)
        width = choice.choice([1, 2, 4, 8])
        if action == 0:
            changed[place] ^= 1 << choice.randrange(8)
        elif action == 1 and place + width <= len(changed):
            number = choice.choice(_EXTREMES) % (1 << 8 * width)
            changed[place : place + width] = number.to_bytes(width, "little")
        elif action == 2:
            changed[place] = choice.randrange(256)
        elif action == 3:
            end = min(place + choice.randrange(1, 17), len(changed))
            source = choice.randrange(len(changed) - (end - place) + 1)
            changed[place:end] = changed[source : source + end - place]
        elif choice.random() < 0.5:
            del changed[place : place + width]
        else:
            changed[place:place] = choice.randbytes(width)
        if not changed:
            return part
    return bytes(changed)


def split(content: bytes) -> list[tuple[bytes, bytes]]:
    """The header and the body of each message of all streams, and the marks that end them."""
    file = pa.BufferReader(content)
    parts = []
    while (start := file.tell()) < len(content):
        if content[start + 4 : start + 8] == bytes(4):
            parts.append((file.read(8), b""))
            continue
        message = pa.ipc.read_message(file)
        body = message.body.size if message.body else 0
        parts.append(
            (content[start : file.tell() - body], content[file.tell() - body : file.tell()])
        )
    return parts


def described(content: bytes) -> Any:
    return json.loads(pq.read_metadata(io.BytesIO(content)).metadata[METADATA_KEY])


def parquet(rows: pa.Table, metadata: bytes) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({METADATA_KEY: metadata})
    return sink.getvalue()


def stream(batches: list[tuple[pa.Table, object]], compression: str | None) -> bytes:
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, batches[0][0].schema, options=options) as writer:
        for rows, metadata in batches:
            for batch in rows.combine_chunks().to_batches():
                custom = metadata and {METADATA_KEY: json.dumps(metadata).encode()}
                writer.write_batch(batch, custom)
    return sink.getvalue()


def first_rows(sample: Path, count: int) -> pa.Table:
    """Those of an earlier version with nulls in the columns that it had not."""
    rows = pq.read_table(sample).slice(0, count)
    for field in SCHEMA:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(SCHEMA.names).cast(SCHEMA)


def write_seeds(corpus: Path) -> None:
    """The first rows of each sample, as a capture and as a spool of two batches."""
    corpus.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES.glob("*.parquet"):
        content = sample.read_bytes()
        rows, metadata = first_rows(sample, 60), described(content)
        text = json.dumps(metadata).encode()
        (corpus / sample.name).write_bytes(parquet(rows, text))
        halves = [(rows.slice(0, 20), metadata), (rows.slice(20), metadata)]
        for compression in ("zstd", None):
            seed = corpus / f"{sample.name}.{compression}.part"
            seed.write_bytes(stream(halves, compression))
        # Of earlier versions: several streams, one with a slice without metadata.
        seed = corpus / f"{sample.name}.streams.part"
        slices = stream([(rows.slice(0, 20), None), (rows.slice(20), metadata)], "zstd")
        seed.write_bytes(stream(halves[:1], "zstd") + stream(halves[1:], "zstd") + slices)
        with (corpus / f"{sample.name}.part").open("wb") as file:
            spool = RowSpool(file)
            for half, _ in halves:
                spool.write_rows(half, parse_metadata(text))
            spool.close()


def main() -> None:
    folder = Path(__file__).parent
    write_seeds(folder / "corpus")
    (folder / "found").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="iorec-fuzz-", dir="/dev/shm") as scratch:

        def run_one(content: bytes) -> None:
            try:
                run_readers(Path(scratch), content)
            except IorecError as error:
                assert error.message and error.hint

        options = [
            f"-artifact_prefix={folder / 'found'}/",
            "-timeout=60",
            "-rss_limit_mb=2048",
            "-max_len=65536",
        ]
        is_repeat = any(not argument.startswith("-") for argument in sys.argv[1:])
        corpus = [] if is_repeat else [str(folder / "corpus")]
        atheris.Setup(
            [sys.argv[0], *options, *sys.argv[1:], *corpus], run_one, custom_mutator=mutate
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
