# SPDX-License-Identifier: GPL-2.0-only
"""The memory that the feeder, the loop in Python and the loop in C share."""

import ctypes
from enum import IntEnum

SLOT_BYTES = 64  # of an SQE, and of an iocb
SLOTS = 1 << 15  # ahead of the loop
REMEMBERED = 1 << 18  # rows of which the closed loop knows when they ended
BUCKETS_PER_OCTAVE = 16
BUCKETS = 61 * BUCKETS_PER_OCTAVE
MOST_ERRNO = 4095
WITH_PREVIOUS = -2
FAILURES_IN_A_ROW = 1000
SPIN_MARGIN_NS = 20_000
LONGEST_WAIT_NS = 20_000_000

# The places of the board, on which both sides say how far they are.
FILLED, IS_ALL, FREED, IS_OVER, HAS_FAILED, ISSUED, COMPLETED = range(7)
BOARD_PLACES = 512  # a page


class Ending(IntEnum):
    """Why pace_run() came back; the first one: to be called again."""

    GOES_ON = 0
    ENDED = 1
    TOO_LATE = 2
    VANISHED = 3
    HUNG = 4
    REFUSED = 5
    INTERRUPTED = 6  # never of the loop itself


_int64, _pointer = ctypes.c_int64, ctypes.c_void_p


class Pace(ctypes.Structure):
    """struct pace of pace.c."""

    _fields_ = (
        ("is_aio", _int64),
        ("fd", _int64),
        ("sq_tail", _pointer),
        ("sq_flags", _pointer),
        ("cq_head", _pointer),
        ("cq_tail", _pointer),
        ("cqes", _pointer),
        ("cq_mask", _int64),
        ("ring_slots", _pointer),
        ("board", _pointer),
        ("slots", _pointer),
        ("due", _pointer),
        ("think", _pointer),
        ("waits_for", _pointer),
        ("mask", _int64),
        ("is_closed", _int64),
        ("is_fast", _int64),
        ("start_ns", _int64),
        ("spin_ns", _int64),
        ("depth", _int64),
        ("batch", _int64),
        ("give_up_ns", _int64),
        ("heap_ns", _pointer),
        ("heap_slot", _pointer),
        ("first_child", _pointer),
        ("next_child", _pointer),
        ("ended_ns", _pointer),
        ("ended_mask", _int64),
        ("has_ended", _pointer),
        ("heap_count", _int64),
        ("admitted", _int64),
        ("issued", _int64),
        ("ended", _int64),
        ("added", _int64),
        ("is_ending", _int64),
        ("ending", _int64),
        ("drain_until_ns", _int64),
        ("failed", _int64),
        ("short_count", _int64),
        ("in_a_row", _int64),
        ("most_in_flight", _int64),
        ("submit_errno", _int64),
        ("starved_ns", _int64),
        ("late_ns", _int64),
        ("lateness", _pointer),
        ("errors", _pointer),
        ("has_sync_discard", _int64),
        ("fds", _pointer),
    )


def bucket_of(late_ns: int) -> int:
    """The place of a lateness in the histogram: 16 buckets for each octave."""
    if late_ns < BUCKETS_PER_OCTAVE:
        return max(late_ns, 0)
    octave = late_ns.bit_length() - 5
    return (octave << 4) + (late_ns >> octave)


def most_in_bucket(bucket: int) -> int:
    """The greatest lateness, in nanoseconds, that counts in a bucket."""
    octave = max((bucket >> 4) - 1, 0)
    return ((bucket - (octave << 4) + 1) << octave) - 1
