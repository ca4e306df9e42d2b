# SPDX-License-Identifier: GPL-2.0-only
"""Sets queues of block devices for a while, and puts back what killed replays have left."""

import contextlib
import fcntl
import json
import os
import re
import stat
from pathlib import Path

from analyze.errors import IorecError
from analyze.replayed import QueueSettings

# What was changed is written there before it is changed. A file that nobody locks is of a replay
# that was killed. Only root writes there, and nobody but root is believed.
FOLDER = Path("/run/iorec")
_NUMBERS = re.compile(r"\d+:\d+")
_CHANGED = ("nomerges", "max_sectors_kb")
_MOST_BYTES = 1 << 16


def read_queue(folder: Path) -> QueueSettings:
    """The settings of a device, by its folder in sysfs."""
    queue = folder / "queue"
    schedulers = (_text(queue / "scheduler") or "").split()
    chosen = [word.strip("[]") for word in schedulers if word.startswith("[")]
    return QueueSettings(
        scheduler=chosen[0] if chosen else None,
        nr_requests=_number(queue / "nr_requests"),
        nomerges=_number(queue / "nomerges"),
        max_sectors_kb=_number(queue / "max_sectors_kb"),
        wbt_lat_usec=_number(queue / "wbt_lat_usec"),
        write_cache=_text(queue / "write_cache"),
        fua=_number(queue / "fua"),
        logical_block_size=_number(queue / "logical_block_size"),
    )


class QueueChanges:
    """Changes attributes, and changes them back at the end; a context manager.

    The files stay open, so that the end needs no privilege.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._state: int | None = None
        self._entries: list[tuple[str, str, str, str]] = []

    def __enter__(self) -> "QueueChanges":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._state is not None:
            os.ftruncate(self._state, 0)  # where the folder may not be written any more
            with contextlib.suppress(OSError):
                (FOLDER / f"replay-{os.getpid()}").unlink()
            os.close(self._state)

    def set(self, numbers: str, attribute: str, value: int) -> None:
        """Sets an attribute of the device MAJOR:MINOR; IorecError if that is not possible.

        Nor is it while another replay needs it: what one puts back, the other one would miss.
        """
        path = _attribute_path(numbers, attribute)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._stack.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = os.pread(fd, _MOST_BYTES, 0).decode().strip()
            if before == str(value):
                return
            self._note(numbers, attribute, before, str(value))
            os.pwrite(fd, str(value).encode(), 0)
        except BlockingIOError as error:
            raise IorecError(
                f"another replay runs on {_device_name(path)}", "wait until it has ended"
            ) from error
        except OSError as error:
            raise IorecError(
                f"cannot set {attribute} of {numbers} to {value}: {error.strerror}",
                "run it as root",
            ) from error
        self._stack.callback(_put_back, fd, before)

    def _note(self, *entry: str) -> None:
        if self._state is None:
            self._state = _create_state()
        self._entries.append((entry[0], entry[1], entry[2], entry[3]))
        os.pwrite(self._state, json.dumps(self._entries).encode(), 0)
        os.fsync(self._state)


def restore_left() -> list[str]:
    """Puts back what killed replays have left; says of each device that it was.

    What somebody else has changed since then stays.
    """
    restored = []
    if os.geteuid() != 0 or not _is_ours(FOLDER):
        return []
    for path in sorted(FOLDER.glob("replay-*")):
        with contextlib.suppress(OSError, ValueError), path.open("r+b") as file:
            if not _is_ours(path):
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = file.read(_MOST_BYTES)
            for numbers, attribute, before, value in reversed(json.loads(content or b"[]")):
                restored += _restore(numbers, attribute, before, value)
            path.unlink()
    return restored


def _restore(numbers: str, attribute: str, before: str, value: str) -> list[str]:
    if not _NUMBERS.fullmatch(numbers) or attribute not in _CHANGED or not before.isdigit():
        return []
    path = _attribute_path(numbers, attribute)
    with contextlib.suppress(OSError):
        if path.read_text().strip() == value:
            path.write_text(before)
            return [f"{_device_name(path)}: {attribute} is {before} again"]
    return []


def _attribute_path(numbers: str, attribute: str) -> Path:
    return Path(f"/sys/dev/block/{numbers}/queue/{attribute}")


def _device_name(path: Path) -> str:
    return path.resolve().parts[-3]


def _put_back(fd: int, before: str) -> None:
    with contextlib.suppress(OSError):  # the device is gone, and with it the setting
        os.pwrite(fd, before.encode(), 0)


def _create_state() -> int:
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    if not _is_ours(FOLDER):
        raise PermissionError(1, f"{FOLDER} does not belong to root alone")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(FOLDER / f"replay-{os.getpid()}", flags, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.ftruncate(fd, 0)
    return fd


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    is_writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == 0 and not is_writable_by_others and not stat.S_ISLNK(found.st_mode)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None
