# SPDX-License-Identifier: GPL-2.0-only
"""Turns kernel records into rows of the capture format."""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analyze.schema import SCHEMA
from iorec.kernel.calls import FIRST_CALL_OP
from iorec.kernel.layers import BIO, LAYER_NAMES, REQUEST, SYSCALL, URING, WAIT
from iorec.kernel.layouts import NEVER_QUEUED, NO_ISSUE, results_of
from iorec.store.arrow import distinct, names_to_arrow, to_arrow
from iorec.store.named import UNKNOWN, Named, Submitter, disk_keys, identity_keys
from iorec.store.origin import Origin

_SECTOR_BYTES = 512
NO_OFFSET = 2**64 - 1  # of bpf/records.h; also of an empty flush (bio_init leaves -1)
_RESTARTED = np.uint32(1 << 16)  # CALL_RESTARTED of bpf/records.h
_NO_FILE = 2**32 - 1
_LARGEST_ERRNO = 4095  # MAX_ERRNO of include/linux/err.h
_NO_ERRNOS = (0,) * 256  # of a layer that the spool does not know
_PLACELESS = ("flush", "cache_flush", "driver")

_NO_DISK = (None, None)
_Distinct = tuple[list[int], NDArray[np.int32]]


class RowBuilder:
    """Builds Arrow batches; names are looked up once for each new value, not for each I/O."""

    def __init__(self, origin: Origin) -> None:
        self._names = origin.names
        errnos = origin.names.errnos
        self._errnos = np.array([errnos.get(layer, _NO_ERRNOS) for layer in LAYER_NAMES], np.int16)
        self._cpus = origin.cpu_count
        self._offset_ns = origin.realtime_offset_ns

    def build(self, batch: Named) -> pa.RecordBatch:
        """One row for each record, in their order; those in flight have no latency or errno.

        Raises ValueError for what no kernel has written.
        """
        records = batch.records
        layers, cpus = np.divmod(records["source"], self._cpus)
        if (layers >= len(LAYER_NAMES)).any():
            raise ValueError
        is_request, is_bio = layers == REQUEST.number, layers == BIO.number
        is_uring = layers == URING.number
        is_wait = layers == WAIT.number
        is_call = (layers >= SYSCALL.number) & ~is_wait
        cmd_flags = distinct(records["cmd_flags"])
        disks = _disks(batch, np.where(is_call | is_wait, 0, disk_keys(records)))
        found, places = distinct(identity_keys(records["source"], records["identity"]))
        submitters = [batch.submitters.get(key, UNKNOWN) for key in found]
        above = _disks(
            batch, np.where(is_bio, records["bio_count"], 0).astype(np.uint64) << np.uint64(8)
        )
        queue_ns = np.where(is_uring, records["queue_ns"] >> np.uint64(32), records["queue_ns"])
        is_unissued = queue_ns == np.where(is_uring, np.uint64(NEVER_QUEUED), np.uint64(NO_ISSUE))
        is_unissued |= is_call & ~is_uring
        is_unfinished = np.full(len(records), batch.is_in_flight)
        results = results_of(records, is_uring)
        is_restarted = is_call & (records["cmd_flags"] & _RESTARTED != 0)
        time = records["start_ns"].view(np.int64) + self._offset_ns
        columns = {
            "time": to_arrow(time, kind=SCHEMA.field("time").type),
            "layer": names_to_arrow(LAYER_NAMES, layers.astype(np.int32)),
            "op": _named(cmd_flags, self._names.op),
            "flags": _named(cmd_flags, self._names.flag_list),
            "device": names_to_arrow([name for name, _ in disks[0]], disks[1]),
            "partition": names_to_arrow([partition for _, partition in disks[0]], disks[1]),
            "offset": self._offsets(records, cmd_flags),
            "bytes": to_arrow(records["bytes"].astype(np.int64)),
            "latency_ns": to_arrow(records["latency_ns"].view(np.int64), is_unfinished),
            "queue_ns": to_arrow(queue_ns.view(np.int64), is_unissued),
            "errno": to_arrow(
                np.where(is_call, _errnos_of(results), self._errnos[layers, records["error"]]),
                is_unfinished | is_restarted,
            ),
            **_submitters(submitters, places),
            "cpu": to_arrow(cpus.astype(np.int16)),
            "bios": to_arrow(records["bio_count"].view(np.int32), ~is_request | is_unissued),
            "above": _above(*above, submitters, np.where(is_bio, places, -1)),
            "result": to_arrow(results, ~is_call | is_unfinished),
            "fd": to_arrow(
                records["bio_count"].view(np.int32), ~is_call | (records["bio_count"] == _NO_FILE)
            ),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _offsets(self, records: NDArray[np.void], cmd_flags: _Distinct) -> pa.Array:
        values, places = cmd_flags
        # Of a system call it is in bytes already.
        unit = np.array([1 if v & 0xFF >= FIRST_CALL_OP else _SECTOR_BYTES for v in values])
        is_placeless = np.array([self._names.op(value) in _PLACELESS for value in values], np.bool_)
        has_none = is_placeless.take(places) | (records["sector"] == NO_OFFSET)
        offsets = records["sector"] * unit.astype(np.uint64).take(places)
        return to_arrow(offsets.view(np.int64), has_none)


def _errnos_of(results: NDArray[np.int64]) -> NDArray[np.int16]:
    """Of what calls returned; beyond _LARGEST_ERRNO it is an address, or the like."""
    is_error = (results < 0) & (results >= -_LARGEST_ERRNO)
    return np.where(is_error, -results, 0).astype(np.int16)


def _disks(
    batch: Named, keys: NDArray[np.uint64]
) -> tuple[list[tuple[str | None, str | None]], NDArray[np.int32]]:
    found, places = distinct(keys)
    return [batch.disks.get(key, _NO_DISK) for key in found], places


def _above(
    disks: list[tuple[str | None, str | None]],
    places: NDArray[np.int32],
    submitters: list[Submitter],
    senders: NDArray[np.int32],
) -> pa.DictionaryArray:
    """The stacked device that sent it down; else the loop device on whose file it is.

    A sender of -1 sends for nobody.
    """
    names = [name for name, _ in disks] + [who.loop for who in submitters]
    has_none = np.array([name is None for name, _ in disks], np.bool_).take(places)
    is_loop = has_none & (senders >= 0)
    return names_to_arrow(names, np.where(is_loop, len(disks) + senders, places))


def _submitters(who: list[Submitter], places: NDArray[np.int32]) -> dict[str, pa.Array]:
    return {
        "pid": _numbers((one.pid for one in who), places, np.int32),
        "tid": _numbers((one.tid for one in who), places, np.int32),
        "comm": names_to_arrow([one.comm for one in who], places),
        "cgroup": names_to_arrow([one.cgroup for one in who], places),
        "charged_cgroup": names_to_arrow([one.charged_cgroup for one in who], places),
        "inode": _numbers((one.inode for one in who), places, np.int64),
        "file": names_to_arrow([one.file for one in who], places),
        "process": names_to_arrow([one.process for one in who], places),
        "cmdline": names_to_arrow([one.cmdline for one in who], places),
        "username": names_to_arrow([one.username for one in who], places),
        "ppid": _numbers((one.ppid for one in who), places, np.int32),
        "process_start": _numbers((one.process_start for one in who), places, np.int64).cast(
            SCHEMA.field("process_start").type
        ),
        "dirtier_pid": _numbers((one.dirtier_pid for one in who), places, np.int32),
        "dirtier": names_to_arrow([one.dirtier for one in who], places),
        "wait": names_to_arrow([one.wait for one in who], places),
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
