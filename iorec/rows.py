"""Turns kernel records into rows of the capture format."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analyze.schema import SCHEMA
from iorec.arrow import distinct, to_arrow
from iorec.cgroups import CgroupNames
from iorec.device_watch import DeviceWatch
from iorec.file_paths import FilePaths
from iorec.files import Files
from iorec.identities import Identities
from iorec.kernel_names import KernelNames
from iorec.name_column import NameColumn
from iorec.plan import LAYERS
from iorec.probes import Probes
from iorec.records import NO_ISSUE, RECORD

_SECTOR_BYTES = 512
_NO_SECTOR = 2**64 - 1  # an empty flush (bio_init leaves -1)
_PLACELESS = ("flush", "driver")

_Distinct = tuple[list[int], NDArray[np.int32]]


class RowBuilder:
    """Builds Arrow batches; names are looked up once for each new value, not for each I/O."""

    def __init__(
        self,
        probes: Probes,
        names: KernelNames,
        paths: FilePaths,
        realtime_offset_ns: int,
    ) -> None:
        """`realtime_offset_ns` is what a monotonic time lacks to wall-clock time."""
        self._names = names
        self._errnos = np.array([names.errnos[layer] for layer in LAYERS], np.int16)
        self._cpus = len(probes.counters)
        self._offset_ns = realtime_offset_ns
        self._dictionaries = {
            column: NameColumn()
            for column in SCHEMA.names
            if pa.types.is_dictionary(SCHEMA.field(column).type)
        }
        for layer in LAYERS:
            self._dictionaries["layer"].code(layer)
        self._identities = Identities(
            probes,
            Files(paths, self._dictionaries["file"]),
            CgroupNames(paths.notes),
            *(self._dictionaries[column] for column in ("comm", "cgroup", "charged_cgroup")),
        )
        self.devices = DeviceWatch(paths.notes)

    def read_identities(self) -> None:
        """Must follow each drain: a record's identity is announced before the record."""
        self._identities.read_new()

    def build(self, records: NDArray[np.void], *, is_in_flight: bool = False) -> pa.RecordBatch:
        """One row for each record, in their order; records in flight have no latency or errno."""
        self.devices.refresh()
        cmd_flags = distinct(records["cmd_flags"])
        devices = distinct(self._device_keys(records))
        time = records["start_ns"].view(np.int64) + self._offset_ns
        layers, cpus = np.divmod(records["lane"], self._cpus)
        is_bio = layers == LAYERS.index("bio")
        is_unissued = records["queue_ns"] == NO_ISSUE
        above = distinct(np.where(is_bio, records["bios_or_above"], 0))
        is_unfinished = np.full(len(records), is_in_flight)
        columns = {
            "time": to_arrow(time, kind=SCHEMA.field("time").type),
            "layer": self._dictionaries["layer"].encode(layers.astype(np.int32)),
            "op": self._named("op", cmd_flags, self._names.op),
            "flags": self._named("flags", cmd_flags, self._names.flag_list),
            "device": self._named("device", devices, lambda key: self._resolve(key)[0]),
            "partition": self._named("partition", devices, lambda key: self._resolve(key)[1]),
            "offset": self._offsets(records, cmd_flags),
            "bytes": to_arrow(records["bytes"].astype(np.int64)),
            "latency_ns": to_arrow(records["latency_ns"].view(np.int64), is_unfinished),
            "queue_ns": to_arrow(records["queue_ns"].view(np.int64), is_unissued),
            "errno": to_arrow(self._errnos[layers, records["error"]], is_unfinished),
            **self._identities.columns(records),
            "cpu": to_arrow(cpus.astype(np.int16)),
            "bios": to_arrow(records["bios_or_above"].view(np.int32), is_bio | is_unissued),
            "above": self._named("above", above, lambda dev: self.devices.resolve(dev, 0)[0]),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _device_keys(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = records["dev"].astype(np.uint64) << np.uint64(8)
        keys |= records["partno"]
        return keys

    def _resolve(self, key: int) -> tuple[str | None, str | None]:
        return self.devices.resolve(key >> 8, key & 0xFF)

    def _named(
        self, column: str, keys: _Distinct, name: Callable[[int], str | None]
    ) -> pa.DictionaryArray:
        values, places = keys
        dictionary = self._dictionaries[column]
        codes = np.array([dictionary.code(name(value)) for value in values], np.int32)
        return dictionary.encode(codes.take(places))

    def _offsets(self, records: NDArray[np.void], cmd_flags: _Distinct) -> pa.Array:
        values, places = cmd_flags
        is_placeless = np.array([self._names.op(value) in _PLACELESS for value in values], np.bool_)
        has_none = is_placeless.take(places) | (records["sector"] == _NO_SECTOR)
        offsets = records["sector"] * np.uint64(_SECTOR_BYTES)
        return to_arrow(offsets.view(np.int64), has_none)


def in_flight_records(slots: NDArray[np.void]) -> NDArray[np.void]:
    """Records (dtype RECORD) of the slots whose I/O has not completed, as far as it is known."""
    is_shown = (slots["key"] != 0) & (slots["is_filtered"] == 0) & (slots["is_part"] == 0)
    busy = slots[is_shown].copy()
    records = np.zeros(len(busy), RECORD)
    for name in set(RECORD.names or ()) - {"latency_ns", "queue_ns", "error"}:
        records[name] = busy[name]
    is_issued = busy["issue_ns"] != 0
    records["queue_ns"] = np.where(is_issued, busy["issue_ns"] - busy["start_ns"], NO_ISSUE)
    return records
