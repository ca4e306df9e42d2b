# SPDX-License-Identifier: GPL-2.0-only
"""The reader of the ring buffer against a producer that never waits."""

import time

import numpy as np
import pytest

from iorec.kernel.layouts import RECORD
from iorec.kernel.ring import Ring
from tests.bench.producer import RING_BYTES, producing

# What producer.c multiplies a record's number by.
FACTORS = {"start_ns": 1, "latency_ns": 3, "queue_ns": 5, "sector": 7}
COPIES = ("bytes", "dev", "cmd_flags", "identity", "bio_count", "source", "error", "partno")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])  # with plain and with atomic loads
def test_records_arrive_whole_and_in_order_while_another_process_writes_them(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    seen = 0
    with producing() as module, Ring(module[b"records"].map_fd, RING_BYTES) as ring:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            records, announcements = ring.drain()
            assert not len(announcements)
            numbers = np.arange(seen + 1, seen + 1 + len(records), dtype=np.uint64)
            for field, factor in (FACTORS | dict.fromkeys(COPIES, 1)).items():
                expected = (numbers * np.uint64(factor)).astype(RECORD[field])
                np.testing.assert_array_equal(records[field], expected, field)
            seen += len(records)
    assert seen > 1_000_000
