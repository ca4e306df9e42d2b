# SPDX-License-Identifier: GPL-2.0-only
"""Decides of each device which layer's account is shown: two layers see the same I/O."""

from collections.abc import Iterable

from analyze.metadata import DeviceCounts, Metadata
from analyze.schema import BLOCK_LAYERS, LAYERS


def shown_ledgers(metadata: Metadata, layer: str | None) -> list[DeviceCounts]:
    """The accounts of what is shown."""
    with_requests = devices_with_requests(metadata)
    return [
        entry
        for entry in all_ledgers(metadata)
        if entry.layer == (layer or ("request" if entry.device in with_requests else "bio"))
    ]


def only_layer(captures: Iterable[Metadata]) -> str | None:
    """The layer to show where no block layer was recorded; None where one was."""
    recorded = {layer for capture in captures for layer in capture.layers}
    others = [layer for layer in LAYERS if layer in recorded - {*BLOCK_LAYERS}]
    return None if recorded & {*BLOCK_LAYERS} or not others else others[0]


def devices_with_requests(metadata: Metadata) -> set[str]:
    """The devices whose requests were counted or, without a ledger, recorded."""
    if metadata.counts is None:
        names = [device.name for device in metadata.devices if device.has_requests]
    else:
        ledgers = all_ledgers(metadata)
        names = [entry.device for entry in ledgers if entry.layer == "request" and entry.device]
    return {name for name in names if name.isprintable()}


def all_ledgers(metadata: Metadata) -> Iterable[DeviceCounts]:
    """The accounts of all layers; none of a capture without a ledger."""
    return metadata.counts.devices if metadata.counts else ()
