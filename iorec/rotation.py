"""Finishes the files of a rotating recording while it goes on."""

import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from iorec.output import PART_SUFFIX, Folder, capture_suffix


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
    """The files of a recording, of which the newest ones are kept."""

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
        self._output = output
        self._folder = folder
        self._part = part
        self._kept_files = kept_files
        self._options = ["--force"] if is_forced else []
        self._number = 1
        self._converting: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        """The name of the file that is being recorded."""
        return rotated_name(self._output, self._number)

    @property
    def part(self) -> BinaryIO:
        """Its spool."""
        return self._part

    def advance(self) -> BinaryIO:
        """Has the finished spool turned into a capture, and opens the next one."""
        self._part.close()
        spool = f"{self.name}{PART_SUFFIX}"
        self._converting[self.name] = subprocess.Popen(
            [sys.executable, "-P", "-m", "iorec", "recover", *self._options, "--", spool],
            cwd=self._folder.descriptor_path,
            start_new_session=True,  # a terminal's Ctrl-C is for the recording alone
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number += 1
        self._part = self._folder.create(f"{self.name}{PART_SUFFIX}")
        self._remove_old()
        return self._part

    def finish(self) -> list[str]:
        """Waits until every file is a capture; returns the spools that could not be made one."""
        for process in self._converting.values():
            process.wait()
        self._remove_old()
        return [
            f"{name}{PART_SUFFIX}"
            for name, process in self._converting.items()
            if process.returncode != 0
        ]

    def _remove_old(self) -> None:
        oldest = self._number - self._kept_files
        for number in range(1, oldest + 1):
            name = rotated_name(self._output, number)
            process = self._converting.get(name)
            if process is not None and process.poll() == 0:
                self._folder.remove(name)
                del self._converting[name]
