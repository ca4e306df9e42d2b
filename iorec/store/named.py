# SPDX-License-Identifier: GPL-2.0-only
"""Records with the names that they use, as they go from the recorder through the spool to rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from iorec.kernel.layouts import RECORD

# Four times the longest path of the kernel: a byte that is not UTF-8 is escaped by four.
LONGEST_NAME_BYTES = 64 << 10
# What the names of one batch may take in memory, and all that a reader has to remember.
MOST_NAMES_BYTES = 8 << 20

# Python's objects, as measured: text, and an entry of a table.
_TEXT_BYTES = 128
_ENTRY_BYTES = 320


class Submitter(NamedTuple):
    """Who submitted an I/O, and for whom; of an unknown one every field is None."""

    pid: int | None = None
    tid: int | None = None
    inode: int | None = None
    ppid: int | None = None
    process_start: int | None = None  # nanoseconds since 1970
    dirtier_pid: int | None = None  # who dirtied the file that a kernel thread writes
    comm: str | None = None
    cgroup: str | None = None
    charged_cgroup: str | None = None
    file: str | None = None
    loop: str | None = None  # the loop device that stands on the file
    process: str | None = None
    cmdline: str | None = None
    username: str | None = None
    dirtier: str | None = None
    wait: str | None = None  # where its thread waits

    @property
    def names(self) -> tuple[str | None, ...]:
        """What is no number, in the order of NAMES."""
        return cast("tuple[str | None, ...]", self[_FIRST_NAME:])


UNKNOWN = Submitter()
_FIRST_NAME = Submitter._fields.index("comm")  # numbers come before
NAMES = Submitter._fields[_FIRST_NAME:]
Disk = tuple[str | None, str | None]  # its name and the partition's


@dataclass(frozen=True)
class Named:
    """Records (dtype RECORD), all of them finished or all in flight, and what their numbers mean.

    Submitters by `identity_keys`, disks by `disk_keys`; a number may be missing, and there may be
    more than are used.
    """

    records: NDArray[np.void]
    submitters: Mapping[int, Submitter]
    disks: Mapping[int, Disk]
    is_in_flight: bool = False

    @property
    def names_bytes(self) -> int:
        """What the names take in memory, each once, at the most."""
        names = names_of(self.submitters, self.disks)
        return memory_bytes(names, len(self.submitters) + len(self.disks))


NOTHING = Named(np.empty(0, RECORD), {}, {})


def names_of(submitters: Mapping[int, Submitter], disks: Mapping[int, Disk]) -> list[str]:
    """All of their names, each once, in their order."""
    names = [name for submitter in submitters.values() for name in submitter.names]
    names += [name for disk in disks.values() for name in disk]
    return [name for name in dict.fromkeys(names) if name is not None]


def memory_bytes(names: Iterable[str], entries: int) -> int:
    """What names take in memory, and the submitters and disks that have them, at the most."""
    texts = [len(name) if name.isascii() else 4 * len(name) for name in names]
    return sum(texts) + len(texts) * _TEXT_BYTES + entries * _ENTRY_BYTES


def identity_keys(sources: NDArray[np.uint16], numbers: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """What tells identities of all sources apart."""
    keys: NDArray[np.uint64] = sources.astype(np.uint64) << np.uint64(32) | numbers
    return keys


def disk_keys(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """The disk and the partition of each record: dev << 8 | partition number."""
    keys: NDArray[np.uint64] = records["dev"].astype(np.uint64) << np.uint64(8)
    keys |= records["partno"]
    return keys
