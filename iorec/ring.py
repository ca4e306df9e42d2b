"""Reads whole backlogs of fixed-size records from a BPF ring buffer."""

import ctypes
import mmap
import platform
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError

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
        """Maps the ring buffer `fd` of `size` bytes, a multiple of a record with its header."""
        entry = np.dtype([("length", "u4"), ("page", "u4"), ("record", dtype)])
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(fd, page, mmap.MAP_SHARED)
        self._pages = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._pages, np.uint64, 1)
        self._entries = np.frombuffer(self._pages, entry, 2 * size // entry.itemsize, page)
        self._capacity = size // entry.itemsize
        self._stride = entry.itemsize
        self._length = dtype.itemsize
        self._nothing = np.empty(0, dtype)
        self._order = None if platform.machine() == "x86_64" else _load_libatomic()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        del self._consumer, self._producer, self._entries
        self._pages.close()
        self._consumer_page.close()

    @property
    def capacity(self) -> int:
        """How many records fit."""
        return self._capacity

    def drain(self) -> NDArray[np.void]:
        """Takes out every finished record, in the order in which their room was reserved."""
        consumed = int(self._consumer[0])
        backlog = (self._load_producer() - consumed) // self._stride
        if not backlog:
            return self._nothing
        first = consumed // self._stride % self._capacity
        entries = self._entries[first : first + backlog]
        lengths = entries["length"]
        if not (is_finished := lengths == self._length).all():
            entries = entries[: int(is_finished.argmin())]
            self._check_busy(int(lengths[len(entries)]))
        if self._order is not None:
            self._order.atomic_thread_fence(_ACQUIRE)
        records: NDArray[np.void] = entries.copy()["record"]
        self._store_consumer(consumed + len(entries) * self._stride)
        return records

    def _load_producer(self) -> int:
        if self._order is None:
            return int(self._producer[0])
        return int(self._order["__atomic_load_8"](self._producer.ctypes.data, _ACQUIRE))

    def _store_consumer(self, position: int) -> None:
        if self._order is None:
            self._consumer[0] = position
        else:
            store = self._order["__atomic_store_8"]
            store(self._consumer.ctypes.data, position, _RELEASE)

    def _check_busy(self, length: int) -> None:
        if not length & _BUSY:
            raise IorecError(
                f"the ring buffer holds a record of {length} bytes where all have {self._length}",
                "this is a defect of iorec: please report it with the output of `uname -a`",
            )


def _load_libatomic() -> ctypes.CDLL:
    """Ordered loads and stores for machines that, unlike x86-64, reorder plain ones."""
    try:
        library = ctypes.CDLL("libatomic.so.1")
    except OSError as error:
        raise IorecError(
            f"cannot load libatomic: {error}",
            "install it (apt install libatomic1): on this machine the ring buffer "
            "cannot be read in the right order without it",
        ) from error
    load, store = library["__atomic_load_8"], library["__atomic_store_8"]
    load.restype, load.argtypes = ctypes.c_uint64, (ctypes.c_void_p, ctypes.c_int)
    store.restype = None
    store.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int)
    return library
