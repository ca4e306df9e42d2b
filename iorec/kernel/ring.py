# SPDX-License-Identifier: GPL-2.0-only
"""Reads whole backlogs of records and announcements from the programs' ring buffer."""

import ctypes
import mmap
import platform
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError
from iorec.kernel.layouts import ANNOUNCEMENT, RECORD

_HEADER_BYTES = 8
_STRIDE = _HEADER_BYTES + RECORD.itemsize
_BUSY = 1 << 31
_ACQUIRE, _RELEASE = 2, 3  # __ATOMIC_ACQUIRE, __ATOMIC_RELEASE


class Ring:
    """The mapped pages of a ring buffer that holds records, and announcements of two records' size.

    Layout and protocol: kernel/bpf/ringbuf.c. The first page holds the consumer's position, the
    second the producer's, then the data follow twice, so that no record is ever torn. A record is
    an 8-byte header, whose first word is its length or has a bit set while it is written, and the
    payload.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Maps the ring buffer `fd` of `size` bytes, a multiple of a record with its header."""
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED)
        self._pages = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._pages, np.uint64, 1)
        # As words: numpy copies a record with named fields field by field, ten times slower.
        self._words = np.frombuffer(self._pages, np.uint64, 2 * size // 8, page).reshape(
            -1, _STRIDE // 8
        )
        self._lengths = self._words.view(np.uint32)[:, 0]
        self._capacity = size // _STRIDE
        self._order = None if platform.machine() == "x86_64" else _Atomics()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        del self._consumer, self._producer, self._words, self._lengths
        self._pages.close()
        self._consumer_page.close()

    @property
    def size_bytes(self) -> int:
        """The room for records and their headers."""
        return self._capacity * _STRIDE

    def backlog_bytes(self) -> int:
        """How much of the room is taken."""
        return self._load_producer() - int(self._consumer[0])

    def drain(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Takes out what is finished: records and announcements, each as their room was reserved.

        What comes after something that is still being written is left for the next time.
        """
        consumed = int(self._consumer[0])
        backlog = (self._load_producer() - consumed) // _STRIDE
        first = consumed // _STRIDE % self._capacity
        # A copy, because a record that is not finished now may be when it is looked at again.
        lengths = self._lengths[first : first + backlog].copy()
        is_record = lengths == RECORD.itemsize
        announced = np.empty(0, np.int64)
        if not is_record.all():
            is_announced = lengths == ANNOUNCEMENT.itemsize
            if not (is_finished := is_record | is_announced).all():
                backlog = int(is_finished.argmin())
                self._check_busy(int(lengths[backlog]))
            announced = np.flatnonzero(is_announced[:backlog])
        if self._order is not None:
            self._order.fence(_ACQUIRE)
        words = self._words[first : first + backlog]
        announcements = _announcements(words, announced)
        if len(announced):
            is_record = is_record[:backlog]
            is_record[announced + 1] = False  # their second halves
            words = words[is_record]
        words = words[:, _HEADER_BYTES // 8 :].copy()
        self._store_consumer(consumed + backlog * _STRIDE)
        return words.view(RECORD).reshape(-1), announcements

    def _load_producer(self) -> int:
        if self._order is None:
            return int(self._producer[0])
        return int(self._order.load(self._producer.ctypes.data, _ACQUIRE))

    def _store_consumer(self, position: int) -> None:
        if self._order is None:
            self._consumer[0] = position
        else:
            self._order.store(self._consumer.ctypes.data, position, _RELEASE)

    def _check_busy(self, length: int) -> None:
        if not length & _BUSY:
            raise IorecError(
                f"the ring buffer holds a record of {length} bytes, where all have "
                f"{RECORD.itemsize} or {ANNOUNCEMENT.itemsize}",
                "this is a defect of iorec: please report it with the output of `iorec doctor`",
            )


def _announcements(words: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.void]:
    """Those that begin at these places, each reaching into the place after."""
    halves = words[places, _HEADER_BYTES // 8 :], words[places + 1]
    return np.concatenate(halves, axis=1).view(ANNOUNCEMENT).reshape(-1)


class _Atomics:
    """Ordered loads and stores for machines that, unlike x86-64, reorder plain ones."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libatomic.so.1")
        except OSError as error:
            raise IorecError(
                f"cannot load libatomic: {error}",
                "install it (apt install libatomic1): on this machine the ring buffer "
                "cannot be read in the right order without it",
            ) from error
        self.fence = library.atomic_thread_fence
        self.load, self.store = library["__atomic_load_8"], library["__atomic_store_8"]
        self.load.restype, self.load.argtypes = ctypes.c_uint64, (ctypes.c_void_p, ctypes.c_int)
        self.store.restype = None
        self.store.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int)
