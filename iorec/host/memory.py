# SPDX-License-Identifier: GPL-2.0-only
"""Sets how this process gets its memory from the kernel."""

import contextlib
import ctypes

# <malloc.h> of glibc; see mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 << 20
_LARGEST_MMAP_THRESHOLD = 32 << 20  # HEAP_MAX_SIZE / 2: malloc takes no more


def keep_freed_memory() -> None:
    """Has malloc use again what was freed, rather than give it back and have it cleared anew.

    The peak stays the same. Of another C library than glibc everything stays as it is.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
