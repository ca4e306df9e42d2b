# SPDX-License-Identifier: GPL-2.0-only
"""Opens a capture's files safely: new, private, owned by the user behind sudo, named when whole."""

import contextlib
import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from analyze.capture_name import SPOOL_SUFFIX, SUFFIXES
from analyze.errors import IorecError
from iorec.host.advice import advice
from iorec.host.workload import User

_UNFINISHED_BYTES = len(".01234567.tmp")  # behind a name; that of a spool is shorter


@dataclass
class Folder:
    """An open folder in which files are created and renamed; a context manager.

    Everything happens relative to the folder's descriptor and never follows a link, so a folder or
    file that is swapped while recording is never written through.
    """

    _path: Path
    _fd: int
    _owner: User | None

    @classmethod
    def open(cls, path: Path, owner: User | None) -> "Folder":
        """Opens an existing folder; the files made in it belong to `owner`."""
        try:
            _refuse_planted_links(path)
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY), owner)
        except OSError as error:
            raise IorecError(
                f"cannot open the folder {path}: {error.strerror}",
                "create it first, or give another place with -o",
            ) from error

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def path(self) -> Path:
        """Where the folder is now: as it was given, if that still leads to it."""
        try:
            is_there = os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except OSError:
            is_there = False
        if is_there or self.is_deleted:
            return self._path
        return Path(self.descriptor_path).readlink()

    @property
    def is_deleted(self) -> bool:
        """Whether no file can be made in it any more."""
        return os.fstat(self._fd).st_nlink == 0

    def instead(self) -> Iterator["Folder"]:
        """New folders for what was to be in this one: in the current and in the temporary one.

        The caller closes or discards them.
        """
        for find in (os.getcwd, tempfile.gettempdir):
            try:
                path = Path(tempfile.mkdtemp(prefix="iorec-", dir=find()))
                if self._owner is not None:
                    os.chown(path, self._owner.uid, self._owner.gid)
            except OSError:
                continue
            yield Folder.open(path, self._owner)

    def discard(self) -> None:
        """Closes a folder that nothing came into, and removes it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._fd)

    @property
    def longest_name_bytes(self) -> int:
        """How long the name of a file in it may be."""
        return os.fpathconf(self._fd, "PC_NAME_MAX")

    @property
    def descriptor_path(self) -> str:
        """Leads a child of this process to the folder, whatever has become of its name."""
        return f"/proc/self/fd/{self._fd}"

    def names(self) -> list[str]:
        """What is in the folder."""
        return [path.name for path in Path(self.descriptor_path).iterdir()]

    def exists(self, name: str) -> bool:
        """Whether the name is taken, by a dangling link too."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def is_locked(self, name: str) -> bool:
        """Whether a process is writing the file; also if that cannot be told."""
        return _is_locked(name, self._fd)

    def is_folder(self, name: str) -> bool:
        """Whether the name is that of a folder."""
        return self.exists(name) and stat.S_ISDIR(
            os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode
        )

    def read_start(self, name: str, size_bytes: int) -> bytes:
        """The first bytes of a file; none if it cannot be read or is no regular file."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(name, flags, dir_fd=self._fd), "rb") as file:
                is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return file.read(size_bytes) if is_regular else b""
        except OSError:
            return b""

    def create(self, name: str, mode: int = 0o600) -> BinaryIO:
        """A new file, readable and writable by its owner alone, or as `mode` and the umask say."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, mode, dir_fd=self._fd)
            if self._owner is not None:
                os.fchown(fd, self._owner.uid, self._owner.gid)
        except OSError as error:
            raise IorecError(
                f"cannot create {self.path / name}: {error.strerror}",
                f"{advice(str(error))}, or give another place with -o",
            ) from error
        return os.fdopen(fd, "w+b", buffering=1 << 20)

    def create_spool(self, name: str) -> BinaryIO:
        """A new file that nobody recovers while it is written."""
        part = self.create(name)
        fcntl.flock(part, fcntl.LOCK_EX)
        return part

    @contextmanager
    def writing(self, name: str, *, is_forced: bool, mode: int = 0o600) -> Iterator[BinaryIO]:
        """A file that gets its name when it is written whole and on disk, and else is removed."""
        self._remove_unfinished(name)
        temporary = f"{name}.{secrets.token_hex(4)}.tmp"
        with self.create(temporary, mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                self._publish(temporary, name, is_forced=is_forced)
            except BaseException:
                self.remove(temporary)
                raise

    def _remove_unfinished(self, name: str) -> None:
        """Removes what a killed process left of the file."""
        unfinished = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
        for left in filter(unfinished.fullmatch, self.names()):
            if not self.is_locked(left):
                self.remove(left)

    def size_bytes(self, name: str) -> int:
        """The size of a file."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size

    def remove_if_empty(self, name: str) -> None:
        """Removes a file that was created and never written."""
        if self.exists(name) and self.size_bytes(name) == 0:
            self.remove(name)

    def _publish(self, old: str, new: str, *, is_forced: bool) -> None:
        """Gives a finished file its name; readers see the whole capture under it, or none of it.

        Unless forced, a file that has taken the name meanwhile is kept, by an error.
        """
        try:
            if is_forced or not self._link(old, new):
                os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            else:
                self.remove(old)
        except OSError as error:
            raise IorecError(
                f"cannot name the file {self.path / new}: {error.strerror}",
                "give another name, or overwrite with -f/--force",
            ) from error
        os.fsync(self._fd)

    def _link(self, old: str, new: str) -> bool:
        """Gives the file a second name; returns whether its file system has hard links."""
        try:
            os.link(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            if self.exists(new):
                raise
            return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return


def check_free(folder: Folder, names: Iterable[str], *, is_forced: bool) -> None:
    """Refuses names that are too long, or taken, unless they may be overwritten."""
    for taken in names:
        if len(os.fsencode(taken)) + _UNFINISHED_BYTES > folder.longest_name_bytes:
            raise IorecError(
                f"the name {taken} is too long for its folder while it is written",
                "give a shorter one with -o",
                exit_code=2,
            )
        if folder.is_folder(taken):
            raise IorecError(f"{folder.path / taken} is a folder", "give another name with -o")
        if folder.exists(taken) and not is_forced:
            raise IorecError(
                f"{folder.path / taken} exists", "overwrite it with -f/--force or give another name"
            )


def _refuse_planted_links(path: Path) -> None:
    """As fs.protected_symlinks does: in a shared folder only one's own links are followed."""
    trusted = {0, os.geteuid(), int(os.environ.get("SUDO_UID", "0"))}
    for place in (path.absolute(), *path.absolute().parents):
        try:
            parent, itself = place.parent.stat(), place.lstat()
        except OSError:
            continue
        is_shared = parent.st_mode & stat.S_ISVTX and parent.st_mode & stat.S_IWOTH
        owners = trusted | {parent.st_uid}
        if stat.S_ISLNK(itself.st_mode) and is_shared and itself.st_uid not in owners:
            raise IorecError(
                f"{place} is a link that somebody else made in a shared folder",
                "give the folder itself with -o",
            )


def leftover_spools(folder: Path) -> list[Path]:
    """Spools of recordings that do not run any more."""
    parts = [path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}{SPOOL_SUFFIX}")]
    return sorted(path for path in parts if _has_content(path) and not _is_locked(path))


def _has_content(path: Path) -> bool:
    """Not of a file that is gone by now, nor of a link that leads nowhere."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _is_locked(path: Path | str, folder_fd: int | None = None) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
