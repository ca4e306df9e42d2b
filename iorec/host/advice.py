# SPDX-License-Identifier: GPL-2.0-only
"""Says what to do first against an error of the system."""

import errno
import os

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "have the file system made writable",
    errno.EEXIST: "leave what has its name, or move it away",
    errno.EIO: "look for errors of the disk in the kernel's log",
}


def advice(cause: str) -> str:
    """What to do first after a failure: what the system's error in its text asks for."""
    found = [remedy for number, remedy in _ADVICE.items() if os.strerror(number) in cause]
    return found[0] if found else "see that the folder can be written"
