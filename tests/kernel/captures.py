# SPDX-License-Identifier: GPL-2.0-only
"""Reads captures without our code, and checks that their accounts close."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analyze.capture import open_captures
from analyze.completeness import Completeness, make_completeness


@dataclass(frozen=True)
class Capture:
    """A finished capture, read with plain pyarrow."""

    table: pa.Table
    metadata: dict[str, Any]
    status: int
    stderr: str
    is_init_idle: bool = False  # process 1 is known to have used no CPU meanwhile

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.metadata["counts"])

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        """The rows that have all the wanted values."""
        return [
            row
            for row in self.table.to_pylist()
            if all(row[name] == value for name, value in wanted.items())
        ]


def read_capture(output: Path, status: int = 0, stderr: str = "") -> Capture:
    """Reads a Parquet capture without any of our code."""
    metadata = json.loads(pq.read_metadata(output).metadata[b"iorec"])
    return Capture(pq.read_table(output), metadata, status, stderr)


def accounted(counts: dict[str, Any]) -> int:
    """The completions that a ledger, or that of a layer, explains."""
    lost = sum(count for cause, count in counts["lost"].items() if cause != "missed_completion")
    kinds = ("recorded", "filtered", "began_before", "continuations", "refused")
    return int(lost + sum(counts.get(kind, 0) for kind in kinds))


def missed_completions(
    capture: Capture,
    device: str,
    *,
    layer: str = "request",
    op: str | None = None,
    besides: Collection[str] = (),
) -> int:
    """I/Os of a device whose completion no program saw.

    Nothing else may be lost, except for the causes that the test makes (`besides`).

    Some kernels hide from programs what interrupts their process 1: none are missed where it was
    idle for sure. Those whose request was not used again are rows without latency.
    """
    lost = capture.counts["lost"]
    causes = {cause for cause, count in lost.items() if count}
    assert causes <= {"missed_completion", *besides}, lost
    if capture.is_init_idle:
        assert lost["missed_completion"] == 0
    entries = _entries(capture, layer, device, op)
    missed = sum(entry.get("missed", entry["lost"]) for entry in entries)
    assert missed <= sum(lost[cause] for cause in causes)
    return int(missed)


def assert_accounts_close(capture: Capture, device: str) -> None:
    """Every completion is accounted for, and the requests of a device agree with /proc/diskstats.

    Of other devices, on which others do I/O, the kernel may hide completions.
    """
    assert_layers_close(capture)
    counts = capture.counts
    assert counts["completions"] == accounted(counts)
    if "request" not in counts["layers"]:
        return
    by_bios = {d["name"] for d in capture.metadata["devices"] if d["has_requests"] is False}
    if device in by_bios:
        return
    for group, kernel in capture.metadata["diskstats"].get(device, {}).items():
        kinds = ("recorded", "filtered", "lost", "began_before")
        entries = _entries(capture, "request", device, group)
        count = sum(entry[kind] for entry in entries for kind in kinds)
        least = kernel["ios"] - kernel["edge_ios"]
        assert least <= count <= kernel["ios"], (group, count, kernel)


def _entries(capture: Capture, layer: str, device: str, op: str | None) -> list[dict[str, Any]]:
    return [
        entry
        for entry in capture.counts["devices"]
        if (entry["layer"], entry["device"]) == (layer, device) and op in (None, entry["op"])
    ]


def assert_layers_close(capture: Capture) -> None:
    """Every completion that a layer saw is accounted for."""
    for counts in capture.counts["layers"].values():
        assert counts["completions"] == accounted(counts), counts


def completeness(output: Path) -> Completeness:
    """What the commands that read a capture say of it."""
    with open_captures([output]) as capture:
        return make_completeness(capture.files)


def lost_in_gaps(capture: Capture, cause: str) -> int:
    """I/Os lost for a cause, by the gaps that the capture names."""
    return sum(gap["lost"] for gap in capture.counts["gaps"] if gap["cause"] == cause)


def nanoseconds(text: str) -> int:
    """Of a time as the metadata have it; datetime knows microseconds only."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(fraction)
