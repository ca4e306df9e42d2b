# SPDX-License-Identifier: GPL-2.0-only
"""Tells the machines apart that captures were recorded on: a name on two of them is two things."""

from collections.abc import Sequence
from dataclasses import replace

from analyze.metadata import Metadata


def host_labels(captures: Sequence[Metadata]) -> list[str]:
    """Of each capture its host's name, and the boot where a host was recorded in several."""
    boots: dict[str, set[str | None]] = {}
    for capture in captures:
        boots.setdefault(capture.hostname, set()).add(capture.boot_id)
    labels = [
        f"{capture.hostname} boot {(capture.boot_id or 'unknown')[:8]}"
        if len(boots[capture.hostname]) > 1
        else capture.hostname
        for capture in captures
    ]
    # A query can hold neither surrogates nor a zero byte.
    return [
        label.encode(errors="backslashreplace").decode().replace("\0", "\\0") for label in labels
    ]


def name_on(host: str, device: str) -> str:
    """A device's name where devices of several hosts are shown."""
    return f"{host}:{device}"


def with_host_in_names(metadata: Metadata, host: str) -> Metadata:
    """The metadata with names of devices that are those of no other host."""
    counts = metadata.counts
    return replace(
        metadata,
        devices=tuple(
            replace(
                device,
                name=name_on(host, device.name),
                stands_on=tuple(name_on(host, name) for name in device.stands_on),
            )
            for device in metadata.devices
        ),
        diskstats={name_on(host, name): ops for name, ops in metadata.diskstats.items()},
        counts=counts
        and replace(
            counts,
            devices=tuple(
                replace(entry, device=entry.device and name_on(host, entry.device))
                for entry in counts.devices
            ),
            events=tuple(
                replace(event, device=event.device and name_on(host, event.device))
                for event in counts.events
            ),
        ),
    )
