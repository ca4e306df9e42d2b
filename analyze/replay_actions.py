# SPDX-License-Identifier: GPL-2.0-only
"""Numbers what a replayed row becomes, and says how much one may move."""

from typing import Final

READ: Final = 0
WRITE: Final = 1
FLUSH: Final = 2
DISCARD: Final = 3
ZERO: Final = 4  # zeros, in whatever way the device has
ZERO_NO_UNMAP: Final = 5  # zeros that take their room

# Beside a write.
FUA: Final = 8
PREFLUSH: Final = 16
KIND_MASK: Final = 7

LARGEST_IO_BYTES: Final = 32 << 20  # for which a replay has memory

NAMES: Final = {
    READ: "read",
    WRITE: "write",
    FLUSH: "flush",
    DISCARD: "discard",
    ZERO: "write_zeroes",
    ZERO_NO_UNMAP: "write_zeroes",
}
