# SPDX-License-Identifier: GPL-2.0-only
"""Identities by number: none is ever taken for another, and none in use is forgotten."""

import numpy as np
import pytest

from iorec.host.cgroups import CgroupNames
from iorec.host.notes import Notes
from iorec.host.processes import Processes
from iorec.kernel.layouts import ANNOUNCEMENT, LOST_IDENTITY, RECORD
from iorec.record.files import Files
from iorec.record.identities import Identities, Identity, Waits
from iorec.store.named import identity_keys


def announced(*submitters: tuple[int, int, int]) -> np.ndarray:
    """Announcements of (source, number, pid)."""
    rows = np.zeros(len(submitters), ANNOUNCEMENT)
    for row, (source, number, pid) in zip(rows, submitters, strict=True):
        row["source"], row["number"] = source, number
        row["identity"]["pid"] = row["identity"]["tid"] = pid
        row["identity"]["comm"] = f"task{pid}".encode()
        row["identity"]["cgroup"] = 1
    return rows


def submitted(*who: tuple[int, int]) -> np.ndarray:
    """Records of (source, number)."""
    rows = np.zeros(len(who), RECORD)
    rows["source"], rows["identity"] = np.array(who, np.uint64).T
    return rows


def no_processes() -> Processes:
    """Where nobody's command line is looked up."""
    return Processes(Notes(), has_cmdlines=False)


class NoPaths:
    notes = Notes()

    def ask(self, inodes: list[tuple[int, int, int]]) -> None:
        assert not inodes

    def answers(self) -> list[tuple[tuple[int, int, int], str | None]]:
        return []


@pytest.fixture
def identities() -> Identities:
    files = Files(NoPaths())  # type: ignore[arg-type]
    return Identities(files, CgroupNames(Notes()), no_processes(), Waits(None, 1))


def pids(identities: Identities, records: np.ndarray) -> list[int | None]:
    return [None if who is None else who.pid for who in found_by(identities, records)]


def found_by(identities: Identities, records: np.ndarray) -> list[Identity | None]:
    keys = identity_keys(records["source"], records["identity"]).tolist()
    known = identities.known(keys)
    return [known.get(key) for key in keys]


def test_a_number_belongs_to_its_source(identities: Identities) -> None:
    identities.read(announced((0, 1, 11), (1, 1, 12), (0, 2, 13)))
    assert pids(identities, submitted((0, 2), (1, 1), (0, 1), (0, 1))) == [13, 12, 11, 11]


def test_a_number_that_was_not_announced_is_unknown(identities: Identities) -> None:
    identities.read(announced((0, 1, 11)))
    unknown = submitted((0, 2), (1, 1), (0, LOST_IDENTITY), (0, 0))
    assert found_by(identities, unknown) == [None] * 4


def test_what_an_io_in_flight_uses_outlives_its_epoch(identities: Identities) -> None:
    identities.read(announced((0, 1, 11), (0, 2, 12)))
    identities.begin_epoch()
    identities.read(announced((0, 3, 13)))
    in_flight = submitted((0, 2))
    keys = identity_keys(in_flight["source"], in_flight["identity"]).tolist()
    identities.forget_outdated(keys)
    assert pids(identities, submitted((0, 1), (0, 2), (0, 3))) == [None, 12, 13]
    identities.begin_epoch()
    identities.forget_outdated([])
    assert pids(identities, submitted((0, 2), (0, 3))) == [None, None]


def test_a_comm_is_kept_up_to_its_end_and_escaped(identities: Identities) -> None:
    rows = announced((0, 1, 11), (0, 2, 12))
    rows["identity"]["comm"] = [np.void(b"caf\xe9\0old bytes!!"), np.void(b"0123456789abcde\0")]
    identities.read(rows)
    found = found_by(identities, submitted((0, 1), (0, 2)))
    assert {who and who.comm for who in found} == {"caf\\xe9", "0123456789abcde"}
