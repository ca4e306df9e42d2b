# SPDX-License-Identifier: GPL-2.0-only
"""Makes SQEs, or iocbs for libaio, of rows: whole batches of them, as numpy arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyze.replay_actions import (
    DISCARD,
    FLUSH,
    FUA,
    KIND_MASK,
    PREFLUSH,
    READ,
    WRITE,
    ZERO,
    ZERO_NO_UNMAP,
)
from iorec.replay.layout import SLOTS
from iorec.replay.memory import Memory

# include/uapi/linux/io_uring.h: struct io_uring_sqe.
SQE = np.dtype(
    [
        ("opcode", "u1"),
        ("flags", "u1"),
        ("ioprio", "<u2"),
        ("fd", "<i4"),
        ("off", "<u8"),
        ("addr", "<u8"),
        ("len", "<u4"),
        ("rw_flags", "<u4"),
        ("user_data", "<u8"),
        ("buf_index", "<u2"),
        ("personality", "<u2"),
        ("file_index", "<i4"),
        ("addr3", "<u8"),
        ("pad", "<u8"),
    ]
)
# include/uapi/linux/aio_abi.h: struct iocb, little-endian.
IOCB = np.dtype(
    [
        ("user_data", "<u8"),
        ("key", "<u4"),
        ("rw_flags", "<u4"),
        ("opcode", "<u2"),
        ("reqprio", "<i2"),
        ("fd", "<u4"),
        ("addr", "<u8"),
        ("len", "<u8"),
        ("off", "<i8"),
        ("reserved2", "<u8"),
        ("flags", "<u4"),
        ("resfd", "<u4"),
    ]
)
_OP_FSYNC, _OP_READ_FIXED, _OP_WRITE_FIXED, _OP_FALLOCATE, _OP_URING_CMD = 3, 4, 5, 17, 46
_AIO_READ, _AIO_WRITE, _AIO_FDSYNC = 0, 1, 3
_FIXED_FILE, _IO_LINK = 1 << 0, 1 << 2
_DATASYNC, _RWF_DSYNC = 1, 2
_PUNCH_HOLE, _ZERO_RANGE, _KEEP_SIZE = 2, 0x10, 1
# Since Linux commit 50c52250e2d7 ("block: implement async io_uring discard cmd") (in v6.12).
_BLOCK_URING_CMD_DISCARD = 0x1200
_PAGE = 4096
_SLOT_SHIFT = 48

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows to replay, as columns: the place of the target, an action, where and how much."""

    target: Ints
    action: Ints
    offset: Ints
    size: Ints

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class Entries:
    """What is handed to the kernel, and of which row each entry is; a pair is of one row."""

    entries: NDArray[np.void]
    row: Ints
    is_first_of_pair: NDArray[np.bool_]


def make_sqes(rows: Rows, memory: Memory, first_slot: int, rng: np.random.Generator) -> Entries:
    """One SQE for each row, and for a write behind a flush a linked pair.

    `user_data` is the result that is expected, and the slot, which counts from `first_slot`.
    """
    row, is_first = _expand(rows)
    kind = rows.action[row] & KIND_MASK
    kind[is_first] = FLUSH
    size = rows.size[row]
    moves = (kind == READ) | (kind == WRITE)
    sqes = np.zeros(len(row), SQE)
    sqes["opcode"] = np.select(
        [kind == READ, kind == WRITE, kind == FLUSH, kind == DISCARD],
        [_OP_READ_FIXED, _OP_WRITE_FIXED, _OP_FSYNC, _OP_URING_CMD],
        _OP_FALLOCATE,
    )
    sqes["flags"] = _FIXED_FILE | np.where(is_first, _IO_LINK, 0)
    sqes["fd"] = rows.target[row]
    is_plain = moves | (kind == ZERO) | (kind == ZERO_NO_UNMAP)
    sqes["off"] = np.where(is_plain, rows.offset[row], 0)
    sqes["addr"] = np.where(moves, _addresses(kind, size, memory, rng), 0)
    sqes["len"] = np.where(moves, size, 0)
    sqes["buf_index"] = np.where((kind == WRITE) & (memory.read_bytes > 0), 1, 0)
    has_fua = (kind == WRITE) & (rows.action[row] & FUA > 0)
    sqes["rw_flags"] = np.where(kind == FLUSH, _DATASYNC, np.where(has_fua, _RWF_DSYNC, 0))
    _set_ranges(sqes, kind, rows.offset[row], size)
    sqes["user_data"] = _user_data(np.where(moves, size, 0), first_slot)
    return Entries(sqes, row, is_first)


def make_iocbs(
    rows: Rows, memory: Memory, fds: Ints, first_slot: int, rng: np.random.Generator
) -> Entries:
    """The same for libaio, which knows neither links nor zeros: one iocb for each row.

    A flush that comes before the data of a write is left out: see rows.py.
    """
    kind = rows.action & KIND_MASK
    moves = kind != FLUSH
    iocbs = np.zeros(len(rows), IOCB)
    iocbs["opcode"] = np.select(
        [kind == READ, kind == WRITE], [_AIO_READ, _AIO_WRITE], default=_AIO_FDSYNC
    )
    iocbs["fd"] = fds[rows.target]
    iocbs["addr"] = np.where(moves, _addresses(kind, rows.size, memory, rng), 0)
    iocbs["len"] = np.where(moves, rows.size, 0)
    iocbs["off"] = np.where(moves, rows.offset, 0)
    iocbs["rw_flags"] = np.where((kind == WRITE) & (rows.action & FUA > 0), _RWF_DSYNC, 0)
    iocbs["user_data"] = _user_data(np.where(moves, rows.size, 0), first_slot)
    return Entries(iocbs, np.arange(len(rows)), np.zeros(len(rows), bool))


def _expand(rows: Rows) -> tuple[Ints, NDArray[np.bool_]]:
    """The row of each entry, and whether the entry is the flush before one."""
    is_pair = rows.action & PREFLUSH > 0
    row = np.repeat(np.arange(len(rows)), 1 + is_pair)
    is_first = np.zeros(len(row), bool)
    is_first[np.flatnonzero(is_pair) + np.arange(int(is_pair.sum()))] = True
    return row, is_first


def _addresses(kind: Ints, size: Ints, memory: Memory, rng: np.random.Generator) -> Ints:
    """Reads all go to one place; writes come from any page, so that few blocks are the same."""
    room = np.maximum(memory.write_bytes - size, 0) // _PAGE + 1
    written = memory.write_address + rng.integers(0, 1 << 30, len(size)) % room * _PAGE
    return np.where(kind == READ, memory.read_address, written)


def _set_ranges(sqes: NDArray[np.void], kind: Ints, offset: Ints, size: Ints) -> None:
    """A range without data: fallocate has its length in `addr`, the command has both elsewhere."""
    zeros = (kind == ZERO) | (kind == ZERO_NO_UNMAP)
    sqes["addr"] = np.where(zeros, size, sqes["addr"])
    mode = np.where(kind == ZERO, _PUNCH_HOLE, _ZERO_RANGE) | _KEEP_SIZE
    sqes["len"] = np.where(zeros, mode, sqes["len"])
    is_discard = kind == DISCARD
    sqes["off"] = np.where(is_discard, _BLOCK_URING_CMD_DISCARD, sqes["off"])
    sqes["addr"] = np.where(is_discard, offset, sqes["addr"])
    sqes["addr3"] = np.where(is_discard, size, 0)


def _user_data(expected: Ints, first_slot: int) -> NDArray[np.uint64]:
    slot = (first_slot + np.arange(len(expected))) % SLOTS
    return expected.astype(np.uint64) | slot.astype(np.uint64) << np.uint64(_SLOT_SHIFT)
