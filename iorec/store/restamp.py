# SPDX-License-Identifier: GPL-2.0-only
"""Gives a finished capture other metadata: its rows stay as they are."""

from collections.abc import Callable

import pyarrow.parquet as pq

from analyze.capture_name import CaptureName
from analyze.metadata import Metadata, parse_metadata
from analyze.schema import METADATA_KEY, SCHEMA
from iorec.store.convert import indented, parquet_writer
from iorec.store.folder import Folder
from iorec.store.metadata_json import to_json


def restamp(
    folder: Folder, capture: CaptureName, change: Callable[[Metadata], Metadata]
) -> Metadata:
    """Writes the capture again with what `change` makes of its metadata, which it returns.

    Readers see the one or the other: the new file takes the name, by rename, when it is on disk.
    """
    path = folder.path / capture.name
    if capture.is_csv:
        text = (folder.path / capture.sidecar).read_bytes()
        changed = change(parse_metadata(text, str(path)))
        with folder.writing(capture.sidecar, is_forced=True) as sidecar:
            sidecar.write(indented(to_json(changed)))
        return changed
    with pq.ParquetFile(path) as rows:
        changed = change(parse_metadata(rows.metadata.metadata[METADATA_KEY], str(path)))
        with folder.writing(capture.name, is_forced=True) as sink, parquet_writer(sink) as writer:
            for number in range(rows.num_row_groups):
                table = rows.read_row_group(number).cast(SCHEMA)
                writer.write_table(table, row_group_size=max(len(table), 1))
            writer.add_key_value_metadata({METADATA_KEY: to_json(changed)})
    return changed
