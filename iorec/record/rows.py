# SPDX-License-Identifier: GPL-2.0-only
"""Turns kernel records into rows of the capture format."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analyze.schema import SCHEMA
from iorec.kernel.layers import BIO, LAYER_NAMES
from iorec.kernel.layouts import NO_IDENTITY, NO_ISSUE
from iorec.kernel.names import KernelNames
from iorec.record.device_watch import DeviceWatch
from iorec.record.files import Files
from iorec.record.identities import UNKNOWN, Identities, Identity
from iorec.store.arrow import distinct, names_to_arrow, to_arrow

_SECTOR_BYTES = 512
_NO_SECTOR = 2**64 - 1  # an empty flush (bio_init leaves -1)
_PLACELESS = ("flush", "cache_flush", "driver")

_Distinct = tuple[list[int], NDArray[np.int32]]


class RowBuilder:
    """Builds Arrow batches; names are looked up once for each new value, not for each I/O."""

    def __init__(
        self,
        names: KernelNames,
        devices: DeviceWatch,
        identities: Identities,
        files: Files,
        cpu_count: int,
        realtime_offset_ns: int,
    ) -> None:
        """`realtime_offset_ns` is what a monotonic time lacks to wall-clock time."""
        self._names = names
        self._devices = devices
        self._identities = identities
        self._files = files
        self._errnos = np.array([names.errnos[layer] for layer in LAYER_NAMES], np.int16)
        self._cpus = cpu_count
        self._offset_ns = realtime_offset_ns

    def build(
        self, records: NDArray[np.void], *, is_in_flight: bool = False
    ) -> tuple[pa.RecordBatch, Counter[str]]:
        """One row for each record, in their order; records in flight have no latency or errno.

        Also how many rows of each layer lack their submitter because its announcement is lost.
        """
        self._devices.refresh()
        cmd_flags = distinct(records["cmd_flags"])
        devices = distinct(self._device_keys(records))
        time = records["start_ns"].view(np.int64) + self._offset_ns
        layers, cpus = np.divmod(records["source"], self._cpus)
        is_bio = layers == BIO.number
        is_unissued = records["queue_ns"] == NO_ISSUE
        is_unfinished = np.full(len(records), is_in_flight)
        identities, submitters = self._identities.resolve(records)
        columns = {
            "time": to_arrow(time, kind=SCHEMA.field("time").type),
            "layer": names_to_arrow(LAYER_NAMES, layers.astype(np.int32)),
            "op": _named(cmd_flags, self._names.op),
            "flags": _named(cmd_flags, self._names.flag_list),
            "device": _named(devices, lambda key: self._resolve(key)[0]),
            "partition": _named(devices, lambda key: self._resolve(key)[1]),
            "offset": self._offsets(records, cmd_flags),
            "bytes": to_arrow(records["bytes"].astype(np.int64)),
            "latency_ns": to_arrow(records["latency_ns"].view(np.int64), is_unfinished),
            "queue_ns": to_arrow(records["queue_ns"].view(np.int64), is_unissued),
            "errno": to_arrow(self._errnos[layers, records["error"]], is_unfinished),
            **self._submitters(identities, submitters),
            "cpu": to_arrow(cpus.astype(np.int16)),
            "bios": to_arrow(records["bio_count"].view(np.int32), is_bio | is_unissued),
            "above": self._above(
                np.where(is_bio, records["bio_count"], 0),
                identities,
                np.where(is_bio, submitters, -1),
            ),
        }
        batch = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        is_unknown = np.array([who is UNKNOWN for who in identities], np.bool_).take(submitters)
        lost = np.bincount(layers[is_unknown & (records["identity"] != NO_IDENTITY)])
        return batch, Counter(dict(zip(LAYER_NAMES, lost.tolist(), strict=False)))

    def _device_keys(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = records["dev"].astype(np.uint64) << np.uint64(8)
        keys |= records["partno"]
        return keys

    def _resolve(self, key: int) -> tuple[str | None, str | None]:
        return self._devices.resolve(key >> 8, key & 0xFF)

    def _offsets(self, records: NDArray[np.void], cmd_flags: _Distinct) -> pa.Array:
        values, places = cmd_flags
        is_placeless = np.array([self._names.op(value) in _PLACELESS for value in values], np.bool_)
        has_none = is_placeless.take(places) | (records["sector"] == _NO_SECTOR)
        offsets = records["sector"] * np.uint64(_SECTOR_BYTES)
        return to_arrow(offsets.view(np.int64), has_none)

    def _above(
        self,
        devs: NDArray[np.uint32],
        identities: Sequence[Identity],
        submitters: NDArray[np.int32],
    ) -> pa.DictionaryArray:
        """The stacked device that sent it down; else the loop device on whose file it is.

        A submitter of -1 sends for nobody.
        """
        found, places = distinct(devs)
        names = [self._devices.resolve(dev, 0)[0] for dev in found]
        names += [self._devices.loop_on(who.inode_dev, who.inode or 0) for who in identities]
        is_loop = (devs == 0) & (submitters >= 0)
        return names_to_arrow(names, np.where(is_loop, len(found) + submitters, places))

    def _submitters(
        self, identities: Sequence[Identity], places: NDArray[np.int32]
    ) -> dict[str, pa.Array]:
        self._files.read_answers()
        return {
            "pid": _numbers((who.pid for who in identities), places, np.int32),
            "tid": _numbers((who.tid for who in identities), places, np.int32),
            "comm": names_to_arrow([who.comm for who in identities], places),
            "cgroup": names_to_arrow([who.cgroup for who in identities], places),
            "charged_cgroup": names_to_arrow([who.charged_cgroup for who in identities], places),
            "inode": _numbers((who.inode for who in identities), places, np.int64),
            "file": names_to_arrow(
                [self._files.name(who.file_number) for who in identities], places
            ),
        }


def _named(keys: _Distinct, name: Callable[[int], str | None]) -> pa.DictionaryArray:
    values, places = keys
    return names_to_arrow([name(value) for value in values], places)


def _numbers(
    values: Iterable[int | None], places: NDArray[np.int32], kind: type[np.signedinteger]
) -> pa.Array:
    found = [(value or 0, value is None) for value in values]
    numbers = np.array([number for number, _ in found], np.int64).astype(kind).take(places)
    is_null = np.array([is_null for _, is_null in found], np.bool_).take(places)
    return to_arrow(numbers, is_null)
