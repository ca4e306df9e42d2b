# SPDX-License-Identifier: GPL-2.0-only
"""Decides of each device which layer is shown: two layers see the same I/O."""

from collections.abc import Iterable, Sequence

from duckdb import DuckDBPyConnection

from analyze.metadata import DeviceCounts, Metadata
from analyze.row_query import quoted
from analyze.sources import CaptureFile


def layer_condition(
    connection: DuckDBPyConnection, files: Sequence[CaptureFile], layer: str | None
) -> str:
    """SQL that leaves the rows of `layer`; without one of each device `request`, or else `bio`."""
    if layer is not None:
        return f"layer = {quoted(layer)}"
    if all(_layers(file.metadata) <= {"request"} for file in files):
        return "true"
    places = [(file.host, name) for file in files for name in devices_with_requests(file.metadata)]
    connection.execute(
        "CREATE TABLE with_requests AS"
        " SELECT DISTINCT unnest(?::VARCHAR[]) AS host, unnest(?::VARCHAR[]) AS device",
        [[host for host, _ in places], [name for _, name in places]],
    )
    has_requests = "(host, device) IN (SELECT (host, device) FROM with_requests)"
    return f"layer = CASE WHEN {has_requests} THEN 'request' ELSE 'bio' END"


def shown_ledgers(metadata: Metadata, layer: str | None) -> list[DeviceCounts]:
    """The accounts of what is shown."""
    with_requests = devices_with_requests(metadata)
    return [
        entry
        for entry in _ledgers(metadata)
        if entry.layer == (layer or ("request" if entry.device in with_requests else "bio"))
    ]


def devices_with_requests(metadata: Metadata) -> set[str]:
    """The devices whose requests were counted or, without a ledger, recorded."""
    if metadata.counts is None:
        names = [device.name for device in metadata.devices if device.has_requests]
    else:
        ledgers = _ledgers(metadata)
        names = [entry.device for entry in ledgers if entry.layer == "request" and entry.device]
    return {name for name in names if name.isprintable()}


def _layers(metadata: Metadata) -> set[str]:
    """The layers that the rows may have."""
    if metadata.counts is None:
        return set(metadata.layers)
    return {entry.layer for entry in _ledgers(metadata)}


def _ledgers(metadata: Metadata) -> Iterable[DeviceCounts]:
    return metadata.counts.devices if metadata.counts else ()
