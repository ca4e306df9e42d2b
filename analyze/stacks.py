# SPDX-License-Identifier: GPL-2.0-only
"""Relates the bios of stacked devices (device-mapper, md) to those of the devices below."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyze.hosts import name_on
from analyze.ledgers import shown_ledgers
from analyze.opened import OpenedRows
from analyze.sources import CaptureFile
from analyze.units import ratio


@dataclass(frozen=True)
class Level:
    """A device and those below it whose I/Os were recorded too: sums count an I/O on each."""

    device: str
    below: tuple[str, ...]


@dataclass(frozen=True)
class Leg:
    """What a stacked device sent to one device below, as bios there.

    The shares are of the bytes and of the latency of the stacked device's own bios: on average, how
    much of the time that one of them took was spent below. Bios that go to several legs at once, or
    in parts to one, make it more than 1 in sum.
    """

    device: str
    ios: int
    bytes: int
    bytes_share: float | None
    time_share: float | None
    avg_ns: float | None
    is_slowest: bool  # by its average


@dataclass(frozen=True)
class Stack:
    """A stacked device and its legs, the slowest first.

    `passed_on_share` is the part of the latency after a bio was itself passed on to a device below,
    as some of md's are; such bios are in no leg.
    """

    device: str
    ios: int
    bytes: int
    amplification: float | None  # bytes below for each byte
    passed_on_share: float | None
    legs: tuple[Leg, ...]


def find_levels(files: Sequence[CaptureFile], layer: str | None = None) -> tuple[Level, ...]:
    """Loop, device-mapper and md devices that were recorded with what they stand on, by name."""
    levels: dict[str, dict[str, None]] = {}
    has_several_hosts = len({file.host for file in files}) > 1
    for file in files:
        disks = {p.name: disk.name for disk in file.metadata.devices for p in disk.partitions}
        ledgers = shown_ledgers(file.metadata, layer)
        recorded = {entry.device for entry in ledgers if entry.recorded}
        for device in file.metadata.devices:
            below = {disks.get(name, name): None for name in device.stands_on}
            if device.name in recorded and not recorded.isdisjoint(below):
                names = [device.name, *(name for name in below if name in recorded)]
                if has_several_hosts:
                    names = [name_on(file.host, name) for name in names]
                levels.setdefault(names[0], {}).update(dict.fromkeys(names[1:]))
    return tuple(Level(device, tuple(below)) for device, below in sorted(levels.items()))


def load_stacks(capture: OpenedRows) -> tuple[Stack, ...]:
    """Of the bios that succeeded in the window that meet the condition, by device."""
    above_name, name = capture.named("above"), capture.named("device")
    legs: dict[str, list[tuple[str, int, int, int]]] = {}
    for above, *leg in capture.sql(
        f"SELECT {above_name}, {name} AS name, count(*), sum(bytes)::BIGINT,"
        " sum(latency_ns)::BIGINT FROM bios WHERE above IS NOT NULL"
        " GROUP BY ALL ORDER BY avg(latency_ns) DESC, name"
    ).fetchall():
        legs.setdefault(above, []).append((leg[0], leg[1], leg[2], leg[3]))
    own = capture.sql(
        f"SELECT {name} AS name, count(*), sum(bytes)::BIGINT, sum(latency_ns)::BIGINT,"
        " sum(latency_ns - queue_ns)::BIGINT FROM bios"
        f" WHERE {name} IN (SELECT {above_name} FROM bios) OR queue_ns IS NOT NULL"
        " GROUP BY name ORDER BY name"
    ).fetchall()
    return tuple(
        Stack(
            device=device,
            ios=ios,
            bytes=size_bytes,
            amplification=ratio(sum(leg[2] for leg in legs.get(device, ())), size_bytes),
            passed_on_share=None if passed_on_ns is None else ratio(passed_on_ns, time_ns),
            legs=tuple(
                Leg(
                    device=name,
                    ios=leg_ios,
                    bytes=leg_bytes,
                    bytes_share=ratio(leg_bytes, size_bytes),
                    time_share=ratio(leg_ns, time_ns),
                    avg_ns=ratio(leg_ns, leg_ios),
                    is_slowest=place == 0,
                )
                for place, (name, leg_ios, leg_bytes, leg_ns) in enumerate(legs.get(device, ()))
            ),
        )
        for device, ios, size_bytes, time_ns, passed_on_ns in own
    )
