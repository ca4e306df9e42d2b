# SPDX-License-Identifier: GPL-2.0-only
"""Which version of cgroups a machine uses."""

import pytest

from iorec.host import cgroups
from iorec.host.mounts import Mount, parse_mount

UNIFIED = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
OLD = b"31 23 0:27 / /sys/fs/cgroup/blkio rw,nosuid shared:5 - cgroup cgroup rw,blkio"


@pytest.mark.parametrize(
    ("lines", "version"),
    [([UNIFIED], 2), ([OLD], 1), ([UNIFIED, OLD], 1), ([], None)],
)
def test_a_hierarchy_of_version_1_is_one_that_rows_do_not_know(
    monkeypatch: pytest.MonkeyPatch, lines: list[bytes], version: int | None
) -> None:
    mounts: list[Mount] = [mount for line in lines if (mount := parse_mount(line))]
    monkeypatch.setattr(cgroups, "read_mounts", lambda: mounts)
    assert cgroups.cgroup_version() == version
