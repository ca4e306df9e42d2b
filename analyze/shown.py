# SPDX-License-Identifier: GPL-2.0-only
"""Leaves the rows of one layer of each device: two layers see the same I/O."""

from collections.abc import Sequence

from duckdb import DuckDBPyConnection

from analyze.ledgers import all_ledgers, devices_with_requests
from analyze.metadata import Metadata
from analyze.row_query import quoted
from analyze.sources import CaptureFile


def layer_condition(
    connection: DuckDBPyConnection, files: Sequence[CaptureFile], layer: str | None
) -> str:
    """SQL that leaves the rows of `layer`; without one of each device `request`, or else `bio`."""
    if layer is not None:
        return f"layer = {quoted(layer)}"
    recorded = set[str]().union(*(_layers(file.metadata) for file in files))
    if "bio" not in recorded:
        return "true" if recorded <= {"request"} else "layer = 'request'"
    places = [(file.host, name) for file in files for name in devices_with_requests(file.metadata)]
    connection.execute(
        "CREATE OR REPLACE TABLE with_requests AS"
        " SELECT DISTINCT unnest(?::VARCHAR[]) AS host, unnest(?::VARCHAR[]) AS device",
        [[host for host, _ in places], [name for _, name in places]],
    )
    has_requests = "(host, device) IN (SELECT (host, device) FROM with_requests)"
    return f"layer = CASE WHEN {has_requests} THEN 'request' ELSE 'bio' END"


def _layers(metadata: Metadata) -> set[str]:
    """The layers that the rows may have."""
    return {*metadata.layers, *(entry.layer for entry in all_ledgers(metadata))}
