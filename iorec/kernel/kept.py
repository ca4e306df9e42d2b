# SPDX-License-Identifier: GPL-2.0-only
"""Keeps for the next recording what was made for this kernel, so that it needs no compiler."""

import contextlib
import hashlib
import json
import os
import platform
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from analyze.typed_json import dump_object, parse_object

T = TypeVar("T")

# File Hierarchy Standard 5.5: what may be deleted at any time.
FOLDER = Path("/var/cache/iorec")
OWNER = 0  # whose entries count

_BTF = Path("/sys/kernel/btf/vmlinux")
MOST_ENTRIES = 20
_MOST_BYTES = 16 << 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def kept(kind: type[T], basis: Iterable[str], make: Callable[[], T]) -> T:
    """What was made of the same texts for this kernel by this version, made now if it was not.

    An entry counts only if nobody but root could have written it, and if it is whole: it says what
    runs in the kernel. Only root keeps entries; whatever fails at that costs the next start some
    time, and nothing else.
    """
    key = hashlib.sha256(_BTF.read_bytes() if _BTF.exists() else b"")
    sources = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
    for text in (kind.__name__, platform.version(), *sources, *basis):
        key.update(len(text).to_bytes(8, "little") + text.encode())
    name = key.hexdigest()
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return parse_object(kind, json.loads(_read(name)))
    made = make()
    with contextlib.suppress(OSError):
        if os.geteuid() == OWNER:
            _write(name, dump_object(made))
    return made


def _read(name: str) -> bytes:
    with contextlib.ExitStack() as stack:
        folder = _open_folder()
        stack.callback(os.close, folder)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            _check_owner(found)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
                raise ValueError
            digest, _, content = file.read(_MOST_BYTES).partition(b"\n")
    if hashlib.sha256(name.encode() + content).hexdigest().encode() != digest:
        raise ValueError
    return content


def _write(name: str, content: bytes) -> None:
    with contextlib.suppress(FileExistsError):
        FOLDER.mkdir(mode=0o755)
    folder = _open_folder()
    try:
        digest = hashlib.sha256(name.encode() + content).hexdigest().encode()
        unfinished = f"{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(unfinished, flags, 0o644, dir_fd=folder), "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                file.write(digest + b"\n" + content)
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:  # no room: each start would leave another one
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=folder)
            raise
        _remove_oldest(folder)
    finally:
        os.close(folder)


def _remove_oldest(folder: int) -> None:
    ages = {
        name: os.stat(name, dir_fd=folder, follow_symlinks=False) for name in os.listdir(folder)
    }
    newest = sorted(ages, key=lambda name: ages[name].st_mtime_ns, reverse=True)
    for name in newest[MOST_ENTRIES:]:
        os.unlink(name, dir_fd=folder)


def _open_folder() -> int:
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_owner(os.fstat(folder))
    except PermissionError:
        os.close(folder)
        raise
    return folder


def _check_owner(found: os.stat_result) -> None:
    if found.st_uid != OWNER or found.st_mode & _WRITABLE_BY_OTHERS:
        raise PermissionError
