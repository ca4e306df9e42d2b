# SPDX-License-Identifier: GPL-2.0-only
"""Sets up an io_uring, whose rings are mapped, so that neither side needs a library."""

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Sequence

from iorec.replay.layout import SLOTS

# include/uapi/linux/io_uring.h; the numbers of the system calls are those of every architecture.
SYS_SETUP, SYS_ENTER, SYS_REGISTER = 425, 426, 427
GETEVENTS, EXT_ARG = 1, 8
SQ_TASKRUN = 4
_CQSIZE, _CLAMP, _SUBMIT_ALL = 1 << 3, 1 << 4, 1 << 7
_COOP_TASKRUN, _TASKRUN_FLAG, _SINGLE_ISSUER, _DEFER_TASKRUN = 1 << 8, 1 << 9, 1 << 12, 1 << 13
_FEATURES = 1 << 0 | 1 << 1 | 1 << 8  # one mapping of both rings, no lost completion, EXT_ARG
_OFFSET_SQES = 0x1000_0000
_REGISTER_BUFFERS, _REGISTER_FILES, _REGISTER_PROBE = 0, 2, 8
_OP_URING_CMD, _DISCARD = 46, 0x1200
_PROBED, _PROBE_BYTES = 64, 16 + 64 * 8
_PARAMS = struct.Struct("<7I3I")
_OFFSETS = struct.Struct("<8I")
_PARAMS_BYTES = 120

# From the best on. Completions run when they are asked for: since Linux commit c0e0d6ba25f1
# ("io_uring: add IORING_SETUP_DEFER_TASKRUN") (in v6.1); without an interrupt of the loop: since
# Linux commit e1169f06d5bb ("io_uring: add IORING_SETUP_COOP_TASKRUN") (in v5.19).
_WAYS = (
    ("SINGLE_ISSUER|DEFER_TASKRUN|TASKRUN_FLAG", _SINGLE_ISSUER | _DEFER_TASKRUN | _TASKRUN_FLAG),
    ("COOP_TASKRUN|TASKRUN_FLAG", _COOP_TASKRUN | _TASKRUN_FLAG),
    ("", 0),
)

libc = ctypes.CDLL(None, use_errno=True)


class Ring:
    """An io_uring with room for SLOTS SQEs; a context manager. Fields named as the kernel's."""

    def __init__(self) -> None:
        """Raises OSError if this system lets nobody set one up, or only an older one."""
        self.fd, self.flags, params = _set_up()
        fields = _PARAMS.unpack_from(params)
        self.entries, self.cq_entries = fields[0], fields[1]
        sq = _OFFSETS.unpack_from(params, 40)
        cq = _OFFSETS.unpack_from(params, 80)
        size = max(sq[6] + 4 * self.entries, cq[5] + 16 * self.cq_entries)
        self.map = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self.sqes = mmap.mmap(
            self.fd,
            64 * self.entries,
            mmap.MAP_SHARED | mmap.MAP_POPULATE,
            offset=_OFFSET_SQES,
        )
        self.sq_tail, self.sq_flags = sq[1], sq[4]
        self.cq_head, self.cq_tail, self.cqes = cq[0], cq[1], cq[5]
        array = struct.pack(f"<{self.entries}I", *range(self.entries))
        self.map[sq[6] : sq[6] + len(array)] = array

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def register_files(self, fds: Sequence[int]) -> None:
        """From now on the `fd` of an SQE is a place among these."""
        self._register(_REGISTER_FILES, (ctypes.c_int32 * len(fds))(*fds), len(fds))

    def register_buffers(self, buffers: Sequence[tuple[int, int]]) -> None:
        """Pins memory, each part by its address and size."""
        vectors = (ctypes.c_uint64 * (2 * len(buffers)))(*(n for pair in buffers for n in pair))
        self._register(_REGISTER_BUFFERS, vectors, len(buffers))

    def _register(self, what: int, argument: object, count: int) -> None:
        if libc.syscall(SYS_REGISTER, self.fd, what, argument, count) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def has_discard_command(fd: int) -> bool:
    """Whether discards of a device that is open for writing can be handed over as any I/O.

    Since Linux commit 50c52250e2d7 ("block: implement async io_uring discard cmd") (in v6.12), one
    of nothing is refused as invalid; before it is not known.
    """
    with Ring() as ring:
        probe = (ctypes.c_uint8 * _PROBE_BYTES)()
        if libc.syscall(SYS_REGISTER, ring.fd, _REGISTER_PROBE, probe, _PROBED) < 0:
            return False
        if probe[0] < _OP_URING_CMD:
            return False
        ring.sqes[:64] = struct.pack("<BBHiQQ40x", _OP_URING_CMD, 0, 0, fd, _DISCARD, 0)
        ring.map[ring.sq_tail : ring.sq_tail + 4] = struct.pack("<I", 1)
        libc.syscall(SYS_ENTER, ring.fd, 1, 1, GETEVENTS, None, 0)
        _, result, _ = struct.unpack_from("<QiI", ring.map, ring.cqes)
        return bool(result == -errno.EINVAL)


def address_of(memory: mmap.mmap, offset: int = 0) -> int:
    """Where a mapping is in this process; the mapping must stay."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory, offset))


def _set_up() -> tuple[int, str, bytearray]:
    number = 0
    for names, flags in _WAYS:
        params = bytearray(_PARAMS_BYTES)
        wanted = flags | _CQSIZE | _CLAMP | (_SUBMIT_ALL if flags else 0)
        struct.pack_into("<3I", params, 0, SLOTS, 2 * SLOTS, wanted)
        buffer = (ctypes.c_char * _PARAMS_BYTES).from_buffer(params)
        fd = libc.syscall(SYS_SETUP, SLOTS, buffer)
        if fd >= 0:
            del buffer
            entries, features = struct.unpack_from("<I", params)[0], _PARAMS.unpack_from(params)[5]
            if entries == SLOTS and features & _FEATURES == _FEATURES:
                return fd, names, params
            os.close(fd)
            number = errno.EOPNOTSUPP
            break
        number = ctypes.get_errno()
        if number != errno.EINVAL:
            break
    raise OSError(number, os.strerror(number))
