# SPDX-License-Identifier: GPL-2.0-only
"""Writes names into a spool once, and reads them with a bound on what they take."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.store.frames import decompress
from iorec.store.named import (
    LONGEST_NAME_BYTES,
    MOST_NAMES_BYTES,
    NAMES,
    Disk,
    Named,
    Submitter,
    memory_bytes,
    names_of,
)

# Names are numbers here, in the order in which they came, from 1 on; 0 is none.
_NUMBERS = [
    ("key", "<u8"),
    ("pid", "<u4"),
    ("tid", "<u4"),
    ("inode", "<u8"),  # 0: none
    ("ppid", "<u4"),
    ("process_start", "<u8"),  # 0: unknown, as ppid is then
    ("dirtier_pid", "<u4"),  # 0: none
]
_SUBMITTER = np.dtype([*_NUMBERS, *((name, "<u4") for name in NAMES)])
# Earlier versions of a spool knew less.
_SUBMITTER_OF = {
    2: np.dtype([*_NUMBERS[:4], *((name, "<u4") for name in NAMES[:5])]),
    3: np.dtype([*_NUMBERS, *((name, "<u4") for name in NAMES[:-1])]),
}
_DISK = np.dtype([("key", "<u8"), ("name", "<u4"), ("partition", "<u4")])
# Of threads (16 bytes in the kernel) and disks (32), whatever had to be escaped.
_LONGEST_SHORT_NAME = 256
_SHORT_NAMES = ("comm", "loop")
# Whether all that came before is forgotten; how many names, submitters and disks follow.
_HEAD = struct.Struct("<BIII")


class WrittenNames:
    """What a reader of the spool knows already: names are written when they are new."""

    def __init__(self) -> None:
        self._forget()

    def encode(self, batch: Named) -> bytes:
        """What of the batch is new; empty if nothing is. Its names must fit by themselves."""
        is_reset = False
        new = self._new(batch)
        if self._held_bytes + _new_bytes(*new) > MOST_NAMES_BYTES:
            self._forget()
            is_reset = True
            new = self._new(batch)
        names, submitters, disks = new
        if not (submitters or disks or is_reset):
            return b""
        self._held_bytes += _new_bytes(*new)
        self._submitters |= submitters
        self._disks |= disks
        code_of = self._codes
        for name in names:
            code_of[name] = len(code_of)
        rows = [
            (
                key,
                *(number or 0 for number in who[: -len(NAMES)]),
                *(code_of[name] for name in who.names),
            )
            for key, who in submitters.items()
        ]
        places = [(key, code_of[disk[0]], code_of[disk[1]]) for key, disk in disks.items()]
        texts = [_cut(name.encode()) for name in names]
        packed: bytes = pa.compress(
            b"".join(
                (
                    _HEAD.pack(is_reset, len(texts), len(rows), len(places)),
                    np.array([len(text) for text in texts], "<u4").tobytes(),
                    np.array(rows, _SUBMITTER).tobytes(),
                    np.array(places, _DISK).tobytes(),
                    *texts,
                )
            ),
            "zstd",
            asbytes=True,
        )
        return packed

    def _forget(self) -> None:
        self._held_bytes = 0
        self._codes: dict[str | None, int] = {None: 0}
        self._submitters: dict[int, Submitter] = {}
        self._disks: dict[int, Disk] = {}

    def _new(self, batch: Named) -> tuple[list[str], dict[int, Submitter], dict[int, Disk]]:
        known, known_disks = self._submitters, self._disks
        submitters = {k: who for k, who in batch.submitters.items() if known.get(k) != who}
        disks = {k: disk for k, disk in batch.disks.items() if known_disks.get(k) != disk}
        names = [name for name in names_of(submitters, disks) if name not in self._codes]
        return names, submitters, disks


class ReadNames:
    """The names of a spool as far as it was read."""

    def __init__(self, version: int) -> None:
        self._kind = _SUBMITTER_OF.get(version, _SUBMITTER)
        self._forget()

    def take(self, content: bytes) -> None:
        """Takes in what is new; ValueError if it is not what `WrittenNames` writes."""
        data = decompress(content, 2 * MOST_NAMES_BYTES)
        if len(data) < _HEAD.size:
            raise ValueError
        is_reset, name_count, submitter_count, disk_count = _HEAD.unpack_from(data)
        if is_reset:
            self._forget()
        place = _HEAD.size
        lengths, place = _rows(data, place, np.dtype("<u4"), name_count)
        submitters, place = _rows(data, place, self._kind, submitter_count)
        disks, place = _rows(data, place, _DISK, disk_count)
        ends = place + np.cumsum(lengths, dtype=np.int64)
        if (ends[-1] if len(ends) else place) != len(data):
            raise ValueError
        if (lengths > LONGEST_NAME_BYTES).any():  # a row of such ones would take all memory
            raise ValueError
        names = [
            data[end - length : end].decode()
            for length, end in zip(lengths.tolist(), ends.tolist(), strict=True)
        ]
        self._held_bytes += memory_bytes(names, submitter_count + disk_count)
        if self._held_bytes > MOST_NAMES_BYTES:
            raise ValueError
        self._names += names
        self._add(submitters, disks)

    def _forget(self) -> None:
        self.submitters: dict[int, Submitter] = {}
        self.disks: dict[int, Disk] = {}
        self._names: list[str | None] = [None]
        self._held_bytes = 0

    def _add(self, found: NDArray[Any], disks: NDArray[Any]) -> None:
        named = self._names
        submitters = np.zeros(len(found), _SUBMITTER)
        for name in found.dtype.names or ():
            submitters[name] = found[name]
        of_disks = [disks["name"], disks["partition"]]
        codes = [*(submitters[name] for name in NAMES), *of_disks]
        if any((column >= len(named)).any() for column in codes):
            raise ValueError
        for name in ("pid", "tid", "ppid", "dirtier_pid", "inode", "process_start"):
            numbers = submitters[name]
            if (numbers >> numbers.dtype.type(8 * numbers.itemsize - 1)).any():
                raise ValueError
        used = np.concatenate([*(submitters[name] for name in _SHORT_NAMES), *of_disks])
        if any(len(named[code] or "") > _LONGEST_SHORT_NAME for code in set(used.tolist())):
            raise ValueError
        for key, pid, tid, inode, ppid, start, dirtier_pid, *own_codes in submitters.tolist():
            self.submitters[key] = Submitter(
                pid,
                tid,
                inode or None,
                ppid if start else None,
                start or None,
                dirtier_pid or None,
                *[named[code] for code in own_codes],
            )
        for key, name, partition in disks.tolist():
            self.disks[key] = named[name], named[partition]


def _rows(data: bytes, place: int, kind: np.dtype[Any], count: int) -> tuple[NDArray[Any], int]:
    """So many of them at a place, and where they end; ValueError if they are not there."""
    return np.frombuffer(data, kind, count, place), place + count * kind.itemsize


def _new_bytes(names: list[str], submitters: dict[int, Submitter], disks: dict[int, Disk]) -> int:
    return memory_bytes(names, len(submitters) + len(disks))


def _cut(name: bytes) -> bytes:
    """What is longer than any name that the kernel has."""
    if len(name) <= LONGEST_NAME_BYTES:
        return name
    return name[:LONGEST_NAME_BYTES].decode(errors="ignore").encode()
