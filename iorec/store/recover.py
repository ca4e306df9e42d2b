# SPDX-License-Identifier: GPL-2.0-only
"""Turns the spool of an interrupted recording into a capture file."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from analyze.errors import IorecError
from iorec.host.privileges import drop_privileges
from iorec.host.workload import invoking_user
from iorec.store.folder import PART_SUFFIX, Folder, capture_suffix, check_free

if TYPE_CHECKING:
    from iorec.store.result import Result


def recover(
    part: Path, output: Path | None, on_rows: Callable[[int], None], *, is_forced: bool
) -> "Result":
    """Writes what the spool holds to `output`, by default its name without .part, and removes it.

    The capture's metadata are those of the last batch that was written whole. A damaged spool gives
    what precedes the damage, and is kept; so is one that cannot be removed. Privileges are dropped
    before the spool is looked at.
    """
    if output is None:
        if not part.name.endswith(PART_SUFFIX):
            raise IorecError(
                f"{part} is not a spool: its name does not end in {PART_SUFFIX}",
                "iorec recover takes the .part file that an interrupted recording left",
                exit_code=2,
            )
        output = part.with_name(part.name.removesuffix(PART_SUFFIX))
    suffix = capture_suffix(output)
    user = invoking_user()
    with _open_spool(part) as spool, Folder.open(output.parent, user) as folder:
        _lock(spool, part)
        check_free(folder, output.name, is_forced=is_forced)
        drop_privileges(user, output.parent, part.parent)
        # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
        from iorec.store.convert import convert
        from iorec.store.result import Result

        metadata = convert(spool, folder, output.name, suffix, on_rows, is_forced=is_forced)
        size = folder.size_bytes(output.name)
        if spool.read(1):
            damage = IorecError(
                f"{part} cannot be read to its end: the rest is not in {output}", "it is kept"
            )
            return Result(output, size, metadata, None, damage)
        with contextlib.suppress(OSError):
            part.unlink()
    return Result(output, size, metadata, None)


def _open_spool(part: Path) -> BinaryIO:
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise IorecError(f"cannot open {part}: {error.strerror}", "check the name") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise IorecError(f"{part} is not a file", "iorec recover takes the .part of a recording")
    return os.fdopen(fd, "rb")


def _lock(spool: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise IorecError(
            f"{part} is being written by a running iorec record", "stop that recording first"
        ) from error
