# SPDX-License-Identifier: GPL-2.0-only
"""What a viewer gets of a feed, and what a feed does with a viewer that does not read."""

import socket
import threading
import time
from dataclasses import replace

import numpy as np

from analyze.metadata import Metadata
from analyze.typed_json import SignedInt
from iorec.kernel.layouts import RECORD
from iorec.live.feed import Feed
from iorec.live.viewer import follow
from iorec.store.named import Named, Submitter
from iorec.store.origin import Origin
from tests.builders import described, table
from tests.unit.record.test_rows import NAMES

DISKS = {7 << 28: ("loop0", None)}


def batch(number: int, count: int) -> Named:
    """Rows that do not pack well, of a submitter that is new in each batch."""
    records = np.zeros(count, RECORD)
    records["dev"] = 7 << 20
    records["identity"] = number
    records["latency_ns"] = np.random.default_rng(number).integers(1, 1 << 40, count)
    return Named(records, {number: Submitter(pid=number, tid=number, comm=f"name {number}")}, DISKS)


def counted(recorded: int, *, is_last: bool) -> Metadata:
    metadata = described(table(1))
    assert metadata.counts is not None
    counts = replace(metadata.counts, recorded=recorded, completions=recorded)
    return replace(metadata, counts=counts, complete=is_last)


def test_a_feed_leaves_out_whole_batches_and_the_rest_is_whole() -> None:
    ours, theirs = socket.socketpair()
    feed = Feed(ours, Origin(NAMES, 1, SignedInt(0)), 0.2)
    recorded, sizes = 0, {}
    begun = time.monotonic()
    for number in range(1, 60):  # nobody reads: some 20 MiB
        sizes[number] = 50_000
        recorded += sizes[number]
        feed.write(batch(number, sizes[number]), counted(recorded, is_last=False))
    assert time.monotonic() - begun < 30  # it never waited for the reader
    rows: dict[int, int] = {}

    def read() -> None:
        for found, metadata in follow(theirs.detach()):
            assert metadata.counts is not None
            assert found["comm"].to_pylist() == [f"name {pid}" for pid in found["pid"].to_pylist()]
            for pid in set(found["pid"].to_pylist()):
                rows[pid] = rows.get(pid, 0) + len(found)

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 30
    while feed._queued_bytes > feed._sent_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sizes[60] = 7
    feed.write(batch(60, 7), counted(recorded + 7, is_last=True))
    feed.close()
    ours.close()
    reader.join(30)
    assert rows.items() <= sizes.items()  # each batch whole or not at all
    assert 0 < len(rows) < len(sizes)
    assert {1, 60} <= rows.keys()


def test_a_feed_whose_viewer_has_ended_says_so() -> None:
    ours, theirs = socket.socketpair()
    feed = Feed(ours, Origin(NAMES, 1, SignedInt(0)), 0.2)
    feed.write(batch(1, 10), counted(10, is_last=False))
    assert not feed.is_over
    theirs.close()
    assert feed.is_over  # at once, and without anything to send
    feed.write(batch(2, 10), counted(20, is_last=True))
    feed.close()
    ours.close()
