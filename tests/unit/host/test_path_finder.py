# SPDX-License-Identifier: GPL-2.0-only
"""Which subvolumes of btrfs hold one file, and which only share its number."""

import pytest

from iorec.host.path_finder import Subvolume, is_one_file

NONE, A, B, GONE = bytes(16), b"a" * 16, b"b" * 16, b"g" * 16
ORIGINAL = Subvolume(5, A, NONE, made=1, ancestor=b"5")
SNAPSHOT = Subvolume(256, B, A, made=100, ancestor=b"5")
UNRELATED = Subvolume(257, B, NONE, made=50, ancestor=b"257")
ORPHANS = [Subvolume(n, bytes([n - 200] * 16), GONE, 100, GONE) for n in (258, 259)]


@pytest.mark.parametrize(
    ("holders", "generation", "is_one"),
    [
        ([], 7, True),
        ([UNRELATED], 7, True),
        ([ORIGINAL, SNAPSHOT], 100, True),
        ([ORIGINAL, SNAPSHOT], 101, False),  # created in both, after the snapshot
        ([ORIGINAL, UNRELATED], 7, False),
        ([SNAPSHOT, UNRELATED], 7, False),
        (ORPHANS, 99, True),
        ([*ORPHANS, UNRELATED], 99, False),
    ],
)
def test_an_inode_is_one_file_in_snapshots_made_after_it(
    holders: list[Subvolume], generation: int, is_one: bool
) -> None:
    assert is_one_file(holders, generation) is is_one
