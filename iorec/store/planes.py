# SPDX-License-Identifier: GPL-2.0-only
"""Packs kernel records: byte by byte of the layout, as bytes of one place are much alike."""

import struct

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.kernel.layouts import RECORD

# Twice what a recorder waits for: it drains a little more than that at once.
MOST_RECORDS = 1 << 17

_WORDS = RECORD.itemsize // 8
_COUNT = struct.Struct("<I")
# Level 1 of zstd takes as long as LZ4 does for these, and a fifth less room (docs/tuning-log.md).
_ZSTD = pa.Codec("zstd", 1)


def pack(records: NDArray[np.void]) -> bytes:
    """At most MOST_RECORDS records (dtype RECORD), none of them left out: see `unpack`.

    How many there are, the first one, which bytes of a record differ from that anywhere (a byte of
    0 or 1 each), and these bytes, all of one place after the other, as zstd.
    """
    if not len(records):
        return _COUNT.pack(0)
    words = np.ascontiguousarray(records).view(np.uint64).reshape(-1, _WORDS).T.copy()
    differing = np.bitwise_or.reduce(words ^ words[:, :1], axis=1).view(np.uint8) != 0
    places = words.view(np.uint8).reshape(_WORDS, -1, 8)
    planes = np.empty((np.count_nonzero(differing), len(records)), np.uint8)
    for plane, place in zip(planes, np.flatnonzero(differing).tolist(), strict=True):
        plane[:] = places[place // 8, :, place % 8]
    packed = _ZSTD.compress(planes, asbytes=True)
    first = records[:1].tobytes()
    return b"".join((_COUNT.pack(len(records)), first, differing.tobytes(), packed))


def unpack(data: bytes) -> NDArray[np.void]:
    """The records; ValueError if `pack` has not made that."""
    if len(data) < _COUNT.size:
        raise ValueError
    (count,) = _COUNT.unpack_from(data)
    if not count and len(data) == _COUNT.size:
        return np.empty(0, RECORD)
    end = _COUNT.size + 2 * RECORD.itemsize
    if not 0 < count <= MOST_RECORDS or len(data) < end:
        raise ValueError
    first, differing = np.frombuffer(data, np.uint8, 2 * RECORD.itemsize, _COUNT.size).reshape(
        2, -1
    )
    places = np.flatnonzero(differing).tolist()
    unpacked = _ZSTD.decompress(data[end:], len(places) * count, asbytes=True)
    planes = np.frombuffer(unpacked, np.uint8).reshape(len(places), count)
    rows = np.empty((count, RECORD.itemsize), np.uint8)
    rows[:] = first
    for plane, place in zip(planes, places, strict=True):
        rows[:, place] = plane
    return rows.view(RECORD).reshape(-1)
