"""Reads whole backlogs of fixed-size records from a BPF ring buffer."""

import ctypes
import mmap
import platform
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError

_HEADER_BYTES = 8
_BUSY = 1 << 31
_ACQUIRE, _RELEASE = 2, 3  # __ATOMIC_ACQUIRE, __ATOMIC_RELEASE


class Ring:
    """The mapped pages of a ring buffer whose records all have one dtype.

    Layout and protocol: kernel/bpf/ringbuf.c. The first page holds the consumer's position, the
    second the producer's, then the data follow twice, so that no record is ever torn. A record is
    an 8-byte header, whose first word is its length or has a bit set while it is written, and the
    payload.
    """

    def __init__(self, fd: int, size: int, dtype: np.dtype[np.void]) -> None:
        """Maps the ring buffer `fd` of `size` bytes, a multiple of a record with its header.

        A record's size is a multiple of 8 bytes.
        """
        stride = _HEADER_BYTES + dtype.itemsize
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED)
        self._pages = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._pages, np.uint64, 1)
        # As words: numpy copies a record with named fields field by field, ten times slower.
        self._words = np.frombuffer(self._pages, np.uint64, 2 * size // 8, page).reshape(
            -1, stride // 8
        )
        self._lengths = self._words.view(np.uint32)[:, 0]
        self._capacity = size // stride
        self._stride = stride
        self._dtype = dtype
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
        return self._capacity * self._stride

    def backlog_bytes(self) -> int:
        """How much of the room is taken."""
        return self._load_producer() - int(self._consumer[0])

    def drain(self) -> NDArray[np.void]:
        """Takes out every finished record, in the order in which their room was reserved."""
        consumed = int(self._consumer[0])
        backlog = (self._load_producer() - consumed) // self._stride
        first = consumed // self._stride % self._capacity
        # A copy, because a record that is not finished now may be when it is looked at again.
        lengths = self._lengths[first : first + backlog].copy()
        count = len(lengths)
        if not (is_finished := lengths == self._dtype.itemsize).all():
            count = int(is_finished.argmin())
            self._check_busy(int(lengths[count]))
        if self._order is not None:
            self._order.fence(_ACQUIRE)
        words = self._words[first : first + count, _HEADER_BYTES // 8 :].copy()
        self._store_consumer(consumed + count * self._stride)
        records: NDArray[np.void] = words.view(self._dtype).reshape(-1)
        return records

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
                f"the ring buffer holds a record of {length} bytes, "
                f"where all have {self._dtype.itemsize}",
                "this is a defect of iorec: please report it with the output of `uname -a`",
            )


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
