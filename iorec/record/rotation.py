# SPDX-License-Identifier: GPL-2.0-only
"""Goes on in a new file when one is full, and keeps the newest ones."""

import contextlib
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from analyze.errors import IorecError
from iorec.store.conversions import Conversions
from iorec.store.folder import PART_SUFFIX, Folder, capture_suffix, names_of_capture


def rotated_name(output: Path, number: int) -> str:
    """`run-00001.parquet` for the first file of `run.parquet`."""
    suffix = capture_suffix(output)
    return f"{output.name.removesuffix(suffix)}-{number:05}{suffix}"


def earlier_files(output: Path, folder: Folder) -> list[str]:
    """The captures and spools that a rotating recording to `output` has left, oldest first."""
    suffix = capture_suffix(output)
    stem = re.escape(output.name.removesuffix(suffix))
    pattern = re.compile(rf"{stem}-\d{{5,}}{re.escape(suffix)}({re.escape(PART_SUFFIX)})?")
    return sorted(filter(pattern.fullmatch, folder.names()))


class Rotation:
    """The files of a recording; the newest ones are kept.

    Where the folder is deleted meanwhile, the file that is being recorded and all that follow go
    to a new one.
    """

    def __init__(
        self,
        output: Path,
        folder: Folder,
        part: BinaryIO,
        kept_files: int,
        *,
        is_forced: bool,
    ) -> None:
        """`part` is the spool of file number one."""
        self.folder = self.first_folder = folder
        self.part = part
        self._output = output
        self._kept_files = kept_files
        self._conversions = Conversions(is_forced=is_forced)
        self._number = self._oldest = 1

    @property
    def name(self) -> str:
        """The name of the file that is being recorded."""
        return rotated_name(self._output, self._number)

    def advance(self) -> BinaryIO:
        """Hands over the finished spool to become a capture, and opens the next one.

        Raises IorecError if there can be none; the finished one is then as it was.
        """
        following = f"{rotated_name(self._output, self._number + 1)}{PART_SUFFIX}"
        if self.folder.is_deleted:
            folder, part = self._move(following)
        else:
            folder, part = self.folder, self.folder.create_spool(following)
        self.part.close()
        self._conversions.add(folder, self.name)
        self.folder, self.part = folder, part
        self._number += 1
        self._remove_old()
        return part

    def finish(self) -> dict[Path, str]:
        """Waits until every file is a capture; returns the spools that are none, and why."""
        self._conversions.wait()
        self._remove_old()
        return self._conversions.failures()

    def _move(self, following: str) -> tuple[Folder, BinaryIO]:
        """A new folder with a copy of the finished spool, and the next one in it."""
        for folder in self.folder.instead():
            try:
                copy_spool(self.part, folder, f"{self.name}{PART_SUFFIX}")
                return folder, folder.create_spool(following)
            except (IorecError, OSError):
                with contextlib.suppress(OSError):
                    folder.remove(f"{self.name}{PART_SUFFIX}")
                folder.discard()
        raise IorecError(
            f"the folder {self.folder.path} was deleted, and no other one has room",
            "start the recording in a folder that stays",
        )

    def _remove_old(self) -> None:
        """Removes what is older than the files to be kept, except for one that is being written."""
        while self._oldest <= self._number - self._kept_files:
            name = rotated_name(self._output, self._oldest)
            if not self._conversions.forget(name):
                return
            for old in (*names_of_capture(name), f"{name}{PART_SUFFIX}"):
                with contextlib.suppress(OSError):
                    self.folder.remove(old)
            self._oldest += 1


def copy_spool(part: BinaryIO, folder: Folder, name: str) -> None:
    """Copies a spool that has no name any more."""
    part.seek(0)
    with folder.create(name) as copy:
        try:
            shutil.copyfileobj(part, copy, 1 << 20)
            copy.flush()
        except OSError:
            folder.remove(name)
            raise
