# SPDX-License-Identifier: GPL-2.0-only
"""Sets up what hands I/Os to the kernel: an io_uring, or libaio where nobody may have one."""

import ctypes
import os
import platform
from collections.abc import Sequence
from types import TracebackType

from analyze.errors import IorecError
from iorec.replay.layout import SLOTS, Pace
from iorec.replay.memory import Memory
from iorec.replay.uring import Ring, address_of, libc

# asm/unistd.h: x86 has numbers of its own, all newer architectures share theirs.
_SYS_IO_SETUP = {"x86_64": 206}.get(platform.machine(), 0)
_SYS_IO_DESTROY = {"x86_64": 207}.get(platform.machine(), 1)


class Engine:
    """An io_uring or an aio context; a context manager."""

    def __init__(self) -> None:
        """IorecError if there is neither."""
        self.ring: Ring | None = None
        self._context = ctypes.c_ulong(0)
        try:
            self.ring = Ring()
        except OSError as error:
            self.why_not = f"{error.strerror}"
            if libc.syscall(_SYS_IO_SETUP, SLOTS, ctypes.byref(self._context)) < 0:
                number = ctypes.get_errno()
                raise IorecError(
                    f"neither io_uring ({error.strerror}) nor libaio ({os.strerror(number)})",
                    "see /proc/sys/kernel/io_uring_disabled and /proc/sys/fs/aio-max-nr",
                ) from error

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self.ring is not None:
            self.ring.__exit__()
        else:
            libc.syscall(_SYS_IO_DESTROY, self._context)

    @property
    def name(self) -> str:
        """As the metadata have it."""
        return "io_uring" if self.ring else "libaio"

    @property
    def flags(self) -> tuple[str, ...]:
        """Of io_uring, as they are named in the kernel."""
        return tuple(filter(None, self.ring.flags.split("|"))) if self.ring else ()

    def register(self, fds: Sequence[int], memory: Memory) -> None:
        """Tells the kernel ahead what I/Os are done on, and with what memory."""
        if self.ring is None:
            return
        parts = [
            (memory.read_address, memory.read_bytes),
            (memory.write_address, memory.write_bytes),
        ]
        try:
            self.ring.register_files(fds)
            if used := [part for part in parts if part[1]]:
                self.ring.register_buffers(used)
        except OSError as error:
            raise IorecError(
                f"cannot give the kernel memory to do I/O with: {error.strerror}",
                "run it as root, or raise the limit of locked memory (ulimit -l)",
            ) from error

    def fill(self, pace: Pace) -> None:
        """Says where the ring is."""
        if self.ring is None:
            pace.is_aio, pace.fd = 1, self._context.value
            return
        ring = self.ring
        pace.fd = ring.fd
        for name in ("sq_tail", "sq_flags", "cq_head", "cq_tail", "cqes"):
            setattr(pace, name, address_of(ring.map, getattr(ring, name)))
        pace.cq_mask = ring.cq_entries - 1
        pace.ring_slots = address_of(ring.sqes)
