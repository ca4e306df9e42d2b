"""Opens a capture's files safely: new, private, owned by the user behind sudo, named when whole."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from analyze.errors import IorecError
from iorec.workload import User

SUFFIXES = (".parquet", ".csv", ".csv.gz")
PART_SUFFIX = ".part"


def capture_suffix(path: Path) -> str:
    """The suffix that picks the format; an error lists those there are."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix) and path.name != suffix:
            return suffix
    raise IorecError(
        f"cannot tell the format of {path} from its name",
        f"end the name in one of: {', '.join(SUFFIXES)}",
        exit_code=2,
    )


@dataclass
class Folder:
    """An open folder in which files are created and renamed; a context manager.

    Everything happens relative to the folder's descriptor and never follows a link, so a folder or
    file that is swapped while recording is never written through.
    """

    path: Path
    _fd: int
    _owner: User | None

    @classmethod
    def open(cls, path: Path, owner: User | None) -> "Folder":
        """Opens an existing folder; the files made in it belong to `owner`."""
        try:
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

    def exists(self, name: str) -> bool:
        """Whether the name is taken, by a dangling link too."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str) -> BinaryIO:
        """A new file, readable and writable by its owner alone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise IorecError(
                f"cannot create {self.path / name}: {error.strerror}",
                "give another place with -o",
            ) from error
        if self._owner is not None:
            os.fchown(fd, self._owner.uid, self._owner.gid)
        return os.fdopen(fd, "w+b", buffering=1 << 20)

    def size_bytes(self, name: str) -> int:
        """The size of a file."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size

    def remove_if_empty(self, name: str) -> None:
        """Removes a file that was created and never written."""
        if self.exists(name) and self.size_bytes(name) == 0:
            self.remove(name)

    def rename(self, old: str, new: str) -> None:
        """Readers see the whole capture under its name, or none of it."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return


def check_free(folder: Folder, name: str, *, is_forced: bool) -> None:
    """Refuses a name that is taken, unless it may be overwritten."""
    if folder.exists(name) and not is_forced:
        raise IorecError(
            f"{folder.path / name} exists", "overwrite it with -f/--force or give another name"
        )


def leftover_spools(folder: Path) -> list[Path]:
    """Spools of recordings that do not run any more."""
    parts = [path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}{PART_SUFFIX}")]
    return sorted(path for path in parts if not _is_locked(path))


def _is_locked(path: Path) -> bool:
    """Whether a recorder holds the spool; also if that cannot be told."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
