# SPDX-License-Identifier: GPL-2.0-only
"""Goes on in a new file when one is full, and keeps the newest ones."""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from analyze.capture_name import SPOOL_SUFFIX, CaptureName
from analyze.errors import IorecError
from iorec.host.advice import advice
from iorec.store.conversions import Conversions
from iorec.store.folder import Folder


class Rotation:
    """The files of a recording; the newest ones are kept.

    Where the folder is deleted meanwhile, the file that is being recorded and all that follow go
    to a new one.
    """

    def __init__(
        self,
        output: CaptureName,
        folder: Folder,
        part: BinaryIO,
        kept_files: int | None,
        replaced: Iterable[str],
        *,
        is_forced: bool,
        is_converted: bool,
    ) -> None:
        """`part` is the spool of file number one; those that are full become captures if asked.

        Without `kept_files` there is one file, which has no number.
        `replaced` are files of an earlier recording, which go when there is something instead.
        """
        self.folder = self.first_folder = folder
        self.part = part
        self._output = output
        self._is_numbered = kept_files is not None
        self._kept_files = kept_files or 1
        self._replaced = {*replaced}
        self._is_converted = is_converted
        self._conversions = Conversions(is_forced=is_forced)
        self._number = self._oldest = 1
        self._earlier_bytes = 0

    @property
    def capture(self) -> CaptureName:
        """The file that is being recorded."""
        return self._output.numbered(self._number) if self._is_numbered else self._output

    @property
    def spool_bytes(self) -> int:
        """What all spools have taken so far."""
        return self._earlier_bytes + os.fstat(self.part.fileno()).st_size

    @property
    def kept(self) -> tuple[Path, ...]:
        """The finished files before the one that is being recorded, the oldest first."""
        captures = map(self._output.numbered, range(self._oldest, self._number))
        names = [capture.name if self._is_converted else capture.spool for capture in captures]
        return tuple(self.folder.path / name for name in names if self.folder.exists(name))

    def advance(self) -> BinaryIO:
        """Hands over the finished spool to become a capture, and opens the next one.

        Raises IorecError if there can be none; the finished one is then as it was.
        """
        following = self._output.numbered(self._number + 1).spool
        if self.folder.is_deleted:
            folder, part = self._move(following)
        else:
            self._name_again()
            folder, part = self.folder, self.folder.create_spool(following)
        self._earlier_bytes = self.spool_bytes
        self.part.close()
        self._remove_replaced()
        if self._is_converted:
            self._conversions.add(folder, self.capture)
        self.folder, self.part = folder, part
        self._number += 1
        self._remove_old()
        return part

    def finish(self) -> dict[Path, str]:
        """Waits until every file is a capture; returns the spools that are none, and why."""
        self._conversions.wait()
        self._remove_replaced()
        self._remove_old()
        return self._conversions.failures()

    def _name_again(self) -> None:
        """Gives the finished spool a name if that was deleted: nobody else could read it."""
        if os.fstat(self.part.fileno()).st_nlink:
            return
        try:
            copy_spool(self.part, self.folder, self.capture.spool)
        except OSError as error:
            raise IorecError(
                f"{self.folder.path / self.capture.spool} was deleted, and there is no room for it:"
                f" {error.strerror}",
                advice(str(error)),
            ) from error

    def _move(self, following: str) -> tuple[Folder, BinaryIO]:
        """A new folder with a copy of the finished spool, and the next one in it."""
        for folder in self.folder.instead():
            try:
                copy_spool(self.part, folder, self.capture.spool)
                return folder, folder.create_spool(following)
            except (IorecError, OSError):
                with contextlib.suppress(OSError):
                    folder.remove(self.capture.spool)
                folder.discard()
        raise IorecError(
            f"the folder {self.folder.path} was deleted, and no other one has room",
            "start the recording in a folder that stays",
        )

    def _remove_replaced(self) -> None:
        """All but what has the name of the file that is being recorded, which overwrites it."""
        for name in self._replaced.difference(self.capture.files):
            with contextlib.suppress(OSError):
                self.first_folder.remove(name)
        self._replaced.clear()

    def _remove_old(self) -> None:
        """Removes what is older than the files to be kept, except for one that is being written."""
        while self._oldest <= self._number - self._kept_files:
            oldest = self._output.numbered(self._oldest)
            if not self._conversions.forget(oldest):
                return
            for old in (*oldest.files, oldest.spool):
                with contextlib.suppress(OSError):
                    self.folder.remove(old)
            self._oldest += 1


def earlier_captures(output: CaptureName, folder: Folder) -> list[CaptureName]:
    """The numbered files that earlier recordings to that output left."""
    names = [name for name in folder.names() if output.is_numbered(name)]
    return [CaptureName(Path(name)) for name in sorted(names) if not name.endswith(SPOOL_SUFFIX)]


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
