# SPDX-License-Identifier: GPL-2.0-only
"""Checks for the privileges that loading programs takes, and drops them."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from analyze.errors import IorecError
from iorec.host.workload import User, become

# include/uapi/linux/capability.h
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_SYS_ADMIN = 0, 1, 2, 21
_NEEDED = {"CAP_PERFMON": 38, "CAP_BPF": 39}
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 8, 38
_NOBODY = 65534  # the kernel's own: /proc/sys/kernel/overflowuid


def check_privileges() -> None:
    """Raises IorecError that names the missing capabilities."""
    effective = _effective_capabilities()
    if effective >> _CAP_SYS_ADMIN & 1:
        return
    missing = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        raise IorecError(
            f"recording needs {' and '.join(missing)}, which this process lacks",
            "run it as root: sudo iorec record ...",
        )


def has_read_privilege() -> bool:
    """Whether this process may open any file, by its inode too."""
    return bool(_effective_capabilities() >> _CAP_DAC_READ_SEARCH & 1)


def drop_privileges(user: User | None, *folders: Path) -> None:
    """Becomes `user`, if there is one who may write into `folders`, and drops every capability.

    Capabilities belong to threads, so there must be only one. Root who may not write
    into a folder as its owner keeps the capability that lets it; so does root whose user may not
    read this package, which is imported further on.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise IorecError(
            "cannot drop privileges: a thread was started too early",
            "please report this as a defect, with the output of: env | grep PYTHON",
        )
    if user is not None and _may_user_go_on(user, folders):
        become(user)
        _set_capabilities((), ())
    elif os.geteuid() == 0:
        everything = range(64)
        _set_capabilities((), everything)
        may_write = _may_write(folders)
        kept = () if may_write and user is None else (_CAP_CHOWN, _CAP_DAC_OVERRIDE)
        _set_capabilities(kept, kept)
    else:
        _set_capabilities((), ())
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def keep_read_privilege() -> None:
    """Becomes nobody, who has no capability but the one to read any file.

    Where there is no such user, as in some containers, it stays who it is.
    """
    ctypes.CDLL(None).prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _set_capabilities((_CAP_DAC_READ_SEARCH,), (_CAP_DAC_READ_SEARCH,))
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _effective_capabilities() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


def _may_user_go_on(user: User, folders: Iterable[Path]) -> bool:
    try:
        os.setegid(user.gid)
        os.seteuid(user.uid)
    except PermissionError:  # what this process may not do, its parent has dropped
        return False
    try:
        return _may_write(folders) and all(
            os.access(place, os.R_OK | os.X_OK, effective_ids=True)
            for place in (Path(__file__).parent.parent, sys.executable)
        )
    finally:
        os.seteuid(0)
        os.setegid(0)


def _may_write(folders: Iterable[Path]) -> bool:
    return all(os.access(folder, os.W_OK | os.X_OK, effective_ids=True) for folder in folders)


def _set_capabilities(effective: Iterable[int], permitted: Iterable[int]) -> None:
    """capset(2); permitted ones that this process lacks are left out."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    present = (ctypes.c_uint32 * 6)()
    libc.capget(header, present)
    sets = [sum(1 << bit for bit in bits) for bits in (effective, permitted)]
    wanted = (ctypes.c_uint32 * 6)()
    for half in range(2):
        for place, bits in enumerate(sets):
            allowed = present[3 * half + 1]
            wanted[3 * half + place] = bits >> 32 * half & 0xFFFFFFFF & allowed
    if libc.capset(header, wanted) != 0:
        error = ctypes.get_errno()
        raise IorecError(
            f"cannot drop privileges: {os.strerror(error)}", "please report this as a defect"
        )
