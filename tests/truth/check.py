# SPDX-License-Identifier: GPL-2.0-only
"""Compares the rows of a capture with what is known of files and processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tests.truth.claims import NO_CGROUP
from tests.truth.disk import Disk, escaped

_MOST_EXAMPLES = 5
_NULL = -1
_CLAIM_BITS = 44  # of nanoseconds since the first claim: four hours


@dataclass
class Verdict:
    """Rows of files that are known, and how many of them say what is not true."""

    rows: int = 0
    wrong_process: int = 0
    wrong_file: int = 0
    wrong_cgroup: int = 0
    astride: int = 0  # neither within a file nor beside it, so that nothing can be said
    unknown: int = 0  # without a submitter
    unknown_file: int = 0  # at a file's beginning: the middle of a large folio names no file
    examples: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return self.wrong_process + self.wrong_file + self.wrong_cgroup + self.astride

    def add(self, other: "Verdict") -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        del self.examples[_MOST_EXAMPLES:]


def check(
    table: pa.Table,
    metadata: dict[str, Any],
    disks: Sequence[Disk],
    claims: NDArray[np.void],
    cgroups: Sequence[set[str]] = (),
) -> Verdict:
    """Checks the rows of a capture; `cgroups` holds the names of those that claims number."""
    rows = _Rows(table, metadata)
    truth = _Claims(claims, cgroups, rows)
    verdict = Verdict()
    for disk in disks:
        verdict.add(_check_disk(rows, disk, truth))
    return verdict


def _check_disk(rows: "_Rows", disk: Disk, truth: "_Claims") -> Verdict:
    named = rows.files.find({name: n for n, names in enumerate(disk.names) for name in names})
    is_here = rows.devices.find({disk.device: 0, disk.numbers: 0}) == 0
    strays = np.flatnonzero((named >= 0) & ~is_here)
    is_here &= (disk.from_ns <= rows.time_ns) & (rows.time_ns < disk.to_ns) & (rows.bytes > 0)
    here = np.flatnonzero(is_here)
    place = np.searchsorted(disk.extents["start"], rows.offset[here], "right") - 1
    extent = disk.extents[np.maximum(place, 0)]
    ends = rows.offset[here] + rows.bytes[here]
    is_within = (place >= 0) & (ends <= extent["end"])
    next_start = np.append(disk.extents["start"], np.iinfo(np.int64).max)[place + 1]
    begins_within = (place >= 0) & (rows.offset[here] < extent["end"])
    astride = here[~is_within & (begins_within | (ends > next_start))]
    outside = here[~is_within]
    strays = np.concatenate([strays, outside[named[outside] >= 0]])
    within, extent = here[is_within], extent[is_within]
    file = extent["file"]
    misnamed = (rows.files.codes[within] != _NULL) & (named[within] != file)
    inode = rows.inode[within]
    misnamed |= (inode != _NULL) & (inode != disk.inodes[file])
    wrong = {
        "wrong_file": np.concatenate([strays, within[misnamed]]),
        "astride": astride,
        **truth.wrong(within, disk.pools[file]),
    }
    is_beginning = extent["is_first"] & (extent["start"] == rows.offset[within])
    return Verdict(
        rows=len(within),
        unknown=int((rows.pid[within] == _NULL).sum()),
        unknown_file=int((is_beginning & (inode == _NULL)).sum()),
        examples=[f"{kind}: {rows.example(which)}" for kind, which in wrong.items() if len(which)],
        **{kind: len(which) for kind, which in wrong.items()},
    )


class _Names:
    """A column of names: the number of each row's, and the names by number."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        array = column.cast("string").combine_chunks().dictionary_encode()
        self.codes: NDArray[np.int64] = array.indices.fill_null(_NULL).to_numpy().astype(np.int64)
        self._names = array.dictionary.to_pylist()

    def find(self, numbers: dict[str, int]) -> NDArray[np.int64]:
        """The number of each row's name; -1 where it has none."""
        by_code = [numbers.get(name, _NULL) for name in self._names]
        found: NDArray[np.int64] = np.array([*by_code, _NULL], np.int64)[self.codes]
        return found  # a null's code is the last, which stays -1

    def begins_with(self, prefix: str) -> NDArray[np.bool_]:
        by_code = [name.startswith(prefix) for name in self._names]
        found: NDArray[np.bool_] = np.array([*by_code, False], np.bool_)[self.codes]
        return found


class _Rows:
    """The columns that are checked."""

    def __init__(self, table: pa.Table, metadata: dict[str, Any]) -> None:
        start = metadata["clock"]["start"]
        time_ns = table["time"].cast("int64").to_numpy()
        self._table = table
        self.time_ns = time_ns - (start["realtime_ns"] - start["monotonic_ns"])
        self.offset, self.bytes, self.pid, self.tid, self.inode = (
            pc.fill_null(table[name].cast("int64"), _NULL).to_numpy()
            for name in ("offset", "bytes", "pid", "tid", "inode")
        )
        self.devices, self.files, self.comms, self.cgroups = (
            _Names(table[name]) for name in ("device", "file", "comm", "cgroup")
        )
        self.is_write = _Names(table["op"]).find({"write": 0}) == 0

    def example(self, which: NDArray[np.int64]) -> str:
        columns = ["time", "layer", "device", "op", "offset", "bytes"]
        columns += ["pid", "tid", "comm", "cgroup", "inode", "file"]
        return str(self._table.select(columns).slice(which[0], 1).to_pylist()[0])


class _Claims:
    """Who used which pool since when."""

    def __init__(self, claims: NDArray[np.void], cgroups: Sequence[set[str]], rows: _Rows) -> None:
        self._rows = rows
        self._first_ns = int(claims["from_ns"].min())
        keys = self._keys(claims["pool"], claims["from_ns"])
        order = np.argsort(keys, kind="stable")
        self._claims, self._sorted = claims[order], keys[order]
        comms, self._comms = np.unique(self._claims["comm"], return_inverse=True)
        self._row_comms = rows.comms.find({escaped(comm): n for n, comm in enumerate(comms)})
        names = {name: number for number, of_one in enumerate(cgroups) for name in of_one}
        self._row_cgroups = rows.cgroups.find(names)

    def _keys(self, pools: NDArray[np.int32], time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        since_ns = np.clip(time_ns - self._first_ns, 0, (1 << _CLAIM_BITS) - 1)
        return pools.astype(np.int64) << _CLAIM_BITS | since_ns

    def wrong(
        self, which: NDArray[np.int64], pools: NDArray[np.int32]
    ) -> dict[str, NDArray[np.int64]]:
        """Those of some rows, of files of these pools, that name another process or cgroup.

        The kernel may write what a process left in memory, in a worker of its own.
        """
        rows = self._rows
        is_left = rows.is_write & rows.comms.begins_with("kworker/")
        known = (rows.pid[which] != _NULL) & ~is_left[which]
        which, pools = which[known], pools[known]
        place = np.searchsorted(self._sorted, self._keys(pools, rows.time_ns[which]), "right") - 1
        claim = self._claims[np.maximum(place, 0)]
        is_right = (
            (place >= 0)
            & (claim["pool"] == pools)
            & (claim["pid"] == rows.pid[which])
            & (claim["tid"] == rows.tid[which])
            & (self._comms[np.maximum(place, 0)] == self._row_comms[which])
        )
        cgroup = claim["cgroup"]
        is_elsewhere = is_right & (cgroup != NO_CGROUP) & (self._row_cgroups[which] != cgroup)
        return {"wrong_process": which[~is_right], "wrong_cgroup": which[is_elsewhere]}
