# SPDX-License-Identifier: GPL-2.0-only
"""SQEs and iocbs: their bytes against struct, and what each action becomes."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.replay_actions import (
    DISCARD,
    FLUSH,
    FUA,
    PREFLUSH,
    READ,
    WRITE,
    ZERO,
    ZERO_NO_UNMAP,
)
from iorec.replay.layout import SLOTS
from iorec.replay.memory import Memory
from iorec.replay.sqes import IOCB, SQE, Rows, make_iocbs, make_sqes

MEMORY = Memory(0x7000_0000_0000, 2 << 20, 0x7000_1000_0000, 16 << 20)
# include/uapi/linux/io_uring.h: opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data,
# buf_index, personality, file_index, addr3, pad.
SQE_STRUCT = struct.Struct("<BBHiQQIIQHHiQQ")
# include/uapi/linux/aio_abi.h
IOCB_STRUCT = struct.Struct("<QIIHhIQQqQII")


def rows(*values: tuple[int, int, int, int]) -> Rows:
    columns = np.array(values, np.int64).reshape(-1, 4).T
    return Rows(*columns)


def sqe(action: int, offset: int = 8192, size: int = 4096) -> tuple[int, ...]:
    made = make_sqes(rows((3, action, offset, size)), MEMORY, 5, np.random.default_rng(1))
    return SQE_STRUCT.unpack(made.entries.tobytes()[-64:])


def user_data(size: int, slot: int) -> int:
    return size | slot << 48


def test_the_entries_are_64_bytes() -> None:
    assert SQE.itemsize == IOCB.itemsize == SQE_STRUCT.size == IOCB_STRUCT.size == 64


def test_a_read_goes_to_the_part_for_reads() -> None:
    assert sqe(READ) == (
        4, 1, 0, 3, 8192, MEMORY.read_address, 4096, 0, user_data(4096, 5), 0, 0, 0, 0, 0,
    )  # fmt: skip


def test_a_write_comes_from_the_part_for_writes() -> None:
    opcode, flags, _, fd, off, addr, length, rw_flags, _, buffer, *_ = sqe(WRITE)
    assert (opcode, flags, fd, off, length, rw_flags, buffer) == (5, 1, 3, 8192, 4096, 0, 1)
    assert MEMORY.write_address <= addr <= MEMORY.write_address + MEMORY.write_bytes - 4096
    assert addr % 4096 == 0


def test_without_reads_the_part_for_writes_is_the_first_that_is_registered() -> None:
    memory = Memory(0, 0, 0x1000, 16 << 20)
    made = make_sqes(rows((0, WRITE, 0, 512)), memory, 0, np.random.default_rng(1))
    assert made.entries["buf_index"].tolist() == [0]


def test_fua_is_a_write_that_is_synced() -> None:
    assert sqe(WRITE | FUA)[7] == 2  # RWF_DSYNC


def test_a_flush_is_fdatasync() -> None:
    assert sqe(FLUSH)[:8] == (3, 1, 0, 3, 0, 0, 0, 1)


def test_a_discard_is_a_command_with_a_range() -> None:
    found = sqe(DISCARD, 1 << 20, 65536)
    assert (found[0], found[4], found[5], found[12]) == (46, 0x1200, 1 << 20, 65536)
    assert found[8] == user_data(0, 5)


@pytest.mark.parametrize(("action", "mode"), [(ZERO, 3), (ZERO_NO_UNMAP, 0x11)])
def test_zeros_are_fallocate_with_the_length_where_others_have_an_address(
    action: int, mode: int
) -> None:
    found = sqe(action, 1 << 20, 65536)
    assert (found[0], found[4], found[5], found[6]) == (17, 1 << 20, 65536, mode)


def test_preflush_with_data_is_a_linked_flush_and_then_the_write() -> None:
    made = make_sqes(
        rows((0, READ, 0, 512), (1, WRITE | PREFLUSH | FUA, 4096, 512), (0, READ, 0, 512)),
        MEMORY,
        0,
        np.random.default_rng(1),
    )
    assert made.entries["opcode"].tolist() == [4, 3, 5, 4]
    assert made.entries["flags"].tolist() == [1, 1 | 4, 1, 1]
    assert made.entries["fd"].tolist() == [0, 1, 1, 0]
    assert made.entries["rw_flags"].tolist() == [0, 1, 2, 0]
    assert made.row.tolist() == [0, 1, 1, 2]
    assert made.is_first_of_pair.tolist() == [False, True, False, False]


ACTIONS: Sequence[int] = (READ, WRITE, WRITE | FUA, WRITE | PREFLUSH, FLUSH, DISCARD, ZERO)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(ACTIONS), st.integers(0, 99)), max_size=50
    ),
    st.integers(0, 1 << 40),
)
def test_slots_count_on_and_every_row_has_its_data_last(
    found: list[tuple[int, int, int]], first: int
) -> None:
    made = make_sqes(
        rows(*((target, action, place * 512, 512) for target, action, place in found)),
        MEMORY,
        first,
        np.random.default_rng(1),
    )
    slots = made.entries["user_data"] >> np.uint64(48)
    assert slots.tolist() == [(first + number) % SLOTS for number in range(len(made.entries))]
    assert sorted(set(made.row.tolist())) == list(range(len(found)))
    for row, (target, action, place) in enumerate(found):
        last = np.flatnonzero(made.row == row)[-1]
        entry = made.entries[last]
        assert entry["fd"] == target
        if action in (READ, WRITE, WRITE | FUA, WRITE | PREFLUSH):
            assert (entry["off"], entry["len"]) == (place * 512, 512)
            assert entry["user_data"] & np.uint64(0xFFFFFFFF) == 512


def test_libaio_has_real_file_descriptors_and_no_pairs() -> None:
    made = make_iocbs(
        rows((1, WRITE | FUA, 8192, 4096), (0, FLUSH, 0, 0), (0, READ, 512, 512)),
        MEMORY,
        np.array([20, 21]),
        SLOTS - 1,
        np.random.default_rng(1),
    )
    write, flush, read = IOCB_STRUCT.iter_unpack(made.entries.tobytes())
    assert write[0] == user_data(4096, SLOTS - 1)
    assert (write[2], write[3], write[5], write[7], write[8]) == (2, 1, 21, 4096, 8192)
    assert (flush[0], flush[3], flush[5]) == (0, 3, 20)
    assert read[1:] == (0, 0, 0, 0, 20, MEMORY.read_address, 512, 512, 0, 0, 0)
