# SPDX-License-Identifier: GPL-2.0-only
"""Describes the layers: what each sees of an I/O, and by which programs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """A layer sees an I/O from one pair of tracepoints.

    `programs` has the tracepoint of each, in the order in which they are attached: completions
    first, so that nothing is seen to start whose end would be missed. `start` begins an I/O, the
    `complete` end one, and all that put one into the table are `claiming`. The table has `slots`
    times as many slots as it has for requests. Interrupts complete I/Os of a block layer. What a
    program of `left_out` leaves out, as it cannot be recorded, is counted under a name. `needs` has
    the layers by whose I/Os it finds its own.
    """

    name: str
    programs: Mapping[str, str]
    start: str
    complete: tuple[str, ...]
    claiming: tuple[str, ...]
    slots: int
    is_block: bool = True
    left_out: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """REQUEST_LAYER and so on of bpf/records.h."""
        return LAYERS.index(self)


REQUEST = Layer(
    name="request",
    programs={
        "rq_complete": "block_rq_complete",
        "rq_merge": "block_rq_merge",
        "back_merge": "block_bio_backmerge",
        "front_merge": "block_bio_frontmerge",
        "rq_requeue": "block_rq_requeue",
        "rq_issue": "block_rq_issue",
        "rq_start": "block_io_start",
    },
    start="rq_start",
    complete=("rq_complete",),
    claiming=("rq_start", "rq_issue"),
    slots=1,
)
BIO = Layer(
    name="bio",
    programs={
        "bio_complete": "block_bio_complete",
        "bios_complete": "block_rq_complete",
        "bio_remap": "block_bio_remap",
        "bio_queue": "block_bio_queue",
    },
    start="bio_queue",
    complete=("bio_complete", "bios_complete"),
    claiming=("bio_queue", "bio_split", "bio_remap"),
    # A request holds many bios when they were merged, and bios wait for requests.
    slots=4,
)
SYSCALL = Layer(
    name="syscall",
    programs={"call_exit": "sys_exit", "call_enter": "sys_enter"},
    start="call_enter",
    complete=("call_exit",),
    claiming=("call_enter",),
    # Of each thread that is in a call.
    slots=4,
    is_block=False,
    left_out={"call_enter": "compat"},
)
URING = Layer(
    name="uring",
    programs={
        "uring_complete": "io_uring_complete",
        "uring_over": "io_uring_cqe_overflow",
        "uring_queue": "io_uring_queue_async_work",
        "uring_submit": "io_uring_submit_req",
    },
    start="uring_submit",
    complete=("uring_complete",),
    claiming=("uring_submit",),
    slots=4,
    is_block=False,
    left_out={"uring_submit": "skipped", "uring_over": "overflowed"},
)
AIO = Layer(
    name="aio",
    programs={"aio_exit": "sys_exit", "aio_enter": "sys_enter"},
    start="aio_enter",
    complete=("aio_exit",),
    claiming=("aio_enter",),
    slots=4,
    is_block=False,
    left_out={"aio_enter": "beyond"},
)
WAIT = Layer(
    name="wait",
    programs={
        "wait_end": "sched_switch",
        "wait_wake": "sched_waking",
        "wait_begin": "sched_switch",
    },
    start="wait_begin",
    complete=("wait_end",),
    claiming=("wait_begin",),
    # Of each thread that is in a call.
    slots=4,
    is_block=False,
    needs=("syscall",),
)
LAYERS = (REQUEST, BIO, SYSCALL, URING, AIO, WAIT)  # by number
LAYER_NAMES = tuple(layer.name for layer in LAYERS)
BLOCK_LAYER_NAMES = tuple(layer.name for layer in LAYERS if layer.is_block)
PROGRAMS_OF_BLOCK_LAYERS = {"bio_split": "block_split", "page_dirty": "writeback_dirty_folio"}
# They change nothing, so that no copy could see that another one ran: they have none.
MERGE_COUNTERS = ("back_merge", "front_merge")
# Nothing interrupts them; but the second, which only counts, too.
UNINTERRUPTED = ("page_dirty", "uring_over", *WAIT.programs)
EVENT_COUNTERS = (*MERGE_COUNTERS, "bio_split")


def layers_of(names: Collection[str]) -> tuple[Layer, ...]:
    """The layers of these names, by number."""
    return tuple(layer for layer in LAYERS if layer.name in names)
