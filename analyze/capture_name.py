# SPDX-License-Identifier: GPL-2.0-only
"""What a capture's name says: its format, and the names of the files that go with it."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from analyze.errors import IorecError

SUFFIXES = (".parquet", ".csv", ".csv.gz")
SPOOL_SUFFIX = ".part"


@dataclass(frozen=True)
class CaptureName:
    """A capture's path; the names beside it are relative to its folder.

    A capture is read under any name; a name that says no format is taken for that of Parquet.
    """

    path: Path

    @classmethod
    def parse(cls, path: Path) -> Self:
        """The name of a capture to be written; IorecError if it says no format."""
        known_suffix(path, SUFFIXES)
        return cls(path)

    @classmethod
    def of_spool(cls, part: Path) -> Self:
        """The capture that its spool becomes; IorecError if the name is not that of a spool."""
        if not part.name.endswith(SPOOL_SUFFIX):
            raise IorecError(
                f"{part} is not a spool: its name does not end in {SPOOL_SUFFIX}",
                "iorec recover takes the .part file that an interrupted recording left",
                exit_code=2,
            )
        return cls.parse(part.with_name(part.name.removesuffix(SPOOL_SUFFIX)))

    @property
    def name(self) -> str:
        """Of the capture itself."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """One of SUFFIXES, or nothing."""
        return next(filter(self.name.endswith, SUFFIXES), "")

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.removesuffix(self.suffix)

    @property
    def is_csv(self) -> bool:
        """Compressed or not."""
        return self.suffix in (".csv", ".csv.gz")

    @property
    def is_compressed(self) -> bool:
        """As a whole; what is in Parquet is compressed by itself."""
        return self.suffix == ".csv.gz"

    @property
    def spool(self) -> str:
        """The file that is written while recording."""
        return f"{self.name}{SPOOL_SUFFIX}"

    @property
    def sidecar(self) -> str:
        """The file that holds the metadata of CSV."""
        return f"{self.stem}.meta.json"

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the finished capture."""
        return (self.name, self.sidecar) if self.is_csv else (self.name,)

    def numbered(self, number: int) -> Self:
        """`run-00001.parquet`, the first file of a rotating recording to `run.parquet`."""
        return type(self)(self.path.with_name(f"{self.stem}-{number:05}{self.suffix}"))

    def is_numbered(self, name: str) -> bool:
        """Whether the name is that of a numbered file of this one, or of its spool."""
        parts = map(re.escape, (self.stem, self.suffix, SPOOL_SUFFIX))
        return re.fullmatch(r"{}-\d{{5,}}{}({})?".format(*parts), name) is not None


def known_suffix(path: Path, suffixes: Collection[str]) -> str:
    """The suffix that picks the format of a file to be written; an error lists those there are."""
    for suffix in suffixes:
        if path.name.endswith(suffix) and path.name != suffix:
            return suffix
    raise IorecError(
        f"cannot tell the format of {path} from its name",
        f"end the name in one of: {', '.join(suffixes)}",
        exit_code=2,
    )
