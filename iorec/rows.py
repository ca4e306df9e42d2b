"""Turns kernel records into rows of the capture format."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analyze.schema import SCHEMA
from iorec.devices import DeviceNames
from iorec.identities import Identities
from iorec.kernel_names import KernelNames
from iorec.name_column import NameColumn
from iorec.probes import Probes
from iorec.records import NO_ISSUE, RECORD

_SECTOR_BYTES = 512
_NO_SECTOR = 2**64 - 1  # an empty flush (bio_init leaves -1)


class RowBuilder:
    """Builds Arrow batches; names are looked up once for each new value, not for each I/O."""

    def __init__(self, probes: Probes, names: KernelNames, realtime_offset_ns: int) -> None:
        """`realtime_offset_ns` is what a monotonic time lacks to wall-clock time."""
        self._names = names
        self._errnos = np.array(names.errnos, np.int16)
        self._offset_ns = realtime_offset_ns
        self._dictionaries = {
            column: NameColumn()
            for column in ("layer", "op", "flags", "device", "partition", "comm", "cgroup")
        }
        self._dictionaries["layer"].code("request")
        self._identities = Identities(
            probes, self._dictionaries["comm"], self._dictionaries["cgroup"]
        )
        self.devices = DeviceNames()

    def read_identities(self) -> None:
        """Must follow each drain: a record's identity is announced before the record."""
        self._identities.read_new()

    def build(self, records: NDArray[np.void], *, is_in_flight: bool = False) -> pa.RecordBatch:
        """One row for each record, in their order; records in flight have no latency or errno."""
        cmd_flags, devices = records["cmd_flags"], self._device_keys(records)
        columns = {
            "time": pa.array(
                (records["start_ns"].astype(np.int64) + self._offset_ns).view("datetime64[ns]")
            ).cast(SCHEMA.field("time").type),
            "layer": self._dictionaries["layer"].encode(np.zeros(len(records), np.int32)),
            "op": self._encode("op", cmd_flags, self._names.op),
            "flags": self._encode("flags", cmd_flags, self._names.flag_list),
            "device": self._encode("device", devices, lambda key: self._resolve(key)[0]),
            "partition": self._encode("partition", devices, lambda key: self._resolve(key)[1]),
            "offset": self._offsets(records),
            "bytes": pa.array(records["bytes"].astype(np.int64)),
            "latency_ns": _nullable(records["latency_ns"], is_in_flight),
            "queue_ns": _nullable(records["queue_ns"], records["queue_ns"] == NO_ISSUE),
            "errno": _nullable(self._errnos[records["error"]], is_in_flight),
            **self._identities.columns(records),
            "cpu": pa.array(records["cpu"].astype(np.int16)),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _device_keys(self, records: NDArray[np.void]) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = records["dev"].astype(np.uint64) << np.uint64(8)
        keys |= records["partno"]
        return keys

    def _resolve(self, key: int) -> tuple[str | None, str | None]:
        return self.devices.resolve(key >> 8, key & 0xFF)

    def _encode(
        self, column: str, keys: NDArray[Any], name: Callable[[int], str | None]
    ) -> pa.DictionaryArray:
        encoded = pa.array(keys).dictionary_encode()
        dictionary = self._dictionaries[column]
        codes = np.array([dictionary.code(name(k)) for k in encoded.dictionary.to_pylist()])
        return dictionary.encode(codes.astype(np.int32)[encoded.indices.to_numpy()])

    def _offsets(self, records: NDArray[np.void]) -> pa.Array:
        has_none = records["sector"] == _NO_SECTOR
        for op in np.unique(records["cmd_flags"] & 0xFF):
            if self._names.op(int(op)) in ("flush", "driver"):
                has_none |= (records["cmd_flags"] & 0xFF) == op
        return _nullable(records["sector"] * np.uint64(_SECTOR_BYTES), has_none)


def in_flight_records(slots: NDArray[np.void]) -> NDArray[np.void]:
    """Records (dtype RECORD) of the slots whose I/O has not completed, as far as it is known."""
    busy = slots[(slots["key"] != 0) & (slots["is_filtered"] == 0)].copy()
    records = np.zeros(len(busy), RECORD)
    for name in ("start_ns", "sector", "bytes", "dev", "cmd_flags", "identity", "cpu", "partno"):
        records[name] = busy[name]
    is_issued = busy["issue_ns"] != 0
    records["queue_ns"] = np.where(is_issued, busy["issue_ns"] - busy["start_ns"], NO_ISSUE)
    return records


def _nullable(values: NDArray[Any], is_null: NDArray[np.bool_] | bool) -> pa.Array:
    signed = values.view(f"i{values.itemsize}") if values.dtype.kind == "u" else values
    mask = np.broadcast_to(is_null, values.shape)
    return pa.array(signed, mask=mask if mask.any() else None)
