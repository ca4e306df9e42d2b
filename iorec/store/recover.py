# SPDX-License-Identifier: GPL-2.0-only
"""Turns the spool of an interrupted recording into a capture file."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.escape import shell_word
from iorec.host.privileges import drop_privileges
from iorec.host.workload import invoking_user
from iorec.store.folder import Folder, check_free

if TYPE_CHECKING:
    from iorec.store.result import Result


def recover(
    part: Path, output: Path | None, on_rows: Callable[[int, float], None], *, is_forced: bool
) -> "Result":
    """Writes what the spool holds to `output`, by default its name without .part, and removes it.

    The capture's metadata are those of the last batch that was written whole. A damaged spool gives
    what precedes the damage, and is kept; so is one that cannot be removed. Privileges are dropped
    before the spool is looked at. `on_rows` is told how many rows are written, and what share of
    the spool has been read.
    """
    capture = CaptureName.of_spool(part) if output is None else CaptureName.parse(output)
    path = capture.path
    user = invoking_user()
    with _open_spool(part) as spool, Folder.open(path.parent, user) as folder:
        _lock(spool, part)
        check_free(folder, capture.files, is_forced=is_forced)
        drop_privileges(user, path.parent, part.parent)
        # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
        from iorec.store.convert import convert
        from iorec.store.result import Result

        spool_bytes = os.fstat(spool.fileno()).st_size
        metadata = convert(
            spool,
            folder,
            capture,
            lambda rows: on_rows(rows, spool.tell() / spool_bytes),
            is_forced=is_forced,
        )
        size = folder.size_bytes(capture.name)
        if spool.read(1):
            damage = IorecError(
                f"{part} cannot be read to its end: the rest is not in {path}", "it is kept"
            )
            return Result(path, size, metadata, None, damage)
        with contextlib.suppress(OSError):
            part.unlink()
    return Result(path, size, metadata, None)


def _open_spool(part: Path) -> BinaryIO:
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "run it with sudo" if isinstance(error, PermissionError) else "check the name"
        raise IorecError(f"cannot open {part}: {error.strerror}", hint) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise IorecError(f"{part} is not a file", "iorec recover takes the .part of a recording")
    if not found.st_size:
        os.close(fd)
        raise IorecError(
            f"{part} is empty: nothing was recorded into it", f"remove it: rm {shell_word(part)}"
        )
    return os.fdopen(fd, "rb")


def _lock(spool: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise IorecError(
            f"{part} is being written by a running iorec record", "stop that recording first"
        ) from error
