# SPDX-License-Identifier: GPL-2.0-only
"""Adds up what the captures of a soak say, and what of it is wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analyze.capture import open_captures
from analyze.completeness import make_completeness
from analyze.errors import IorecError
from tests.kernel.captures import Capture, accounted, assert_accounts_close, read_capture
from tests.truth.check import Verdict, check
from tests.truth.claims import Workers
from tests.truth.disk import Disk


@dataclass
class Tally:
    """All captures so far."""

    workers: Workers
    cgroups: Sequence[set[str]]
    device: str  # whose statistics are on all the time
    captures: int = 0
    recovered: int = 0
    refused: int = 0
    rows: int = 0
    identities_lost: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    troubles: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return bool(self.captures) and not (self.verdict.wrong or self.troubles or self.refused)

    def add(self, path: Path, disks: Sequence[Disk]) -> None:
        """Checks a capture in every respect."""
        self.captures += 1
        try:
            with open_captures([path]) as opened:
                said = make_completeness(opened.files)
        except IorecError as error:
            self.refused += 1
            self.troubles.append(f"{path} is refused: {error}")
            return
        capture = read_capture(path)
        self.recovered += not capture.metadata["complete"]
        self.rows += len(capture.table)
        self.lost.update(capture.counts["lost"])
        if said.unaccounted or said.row_mismatch:
            mismatch = f"{said.unaccounted} unaccounted for, {said.row_mismatch} rows differ"
            self.troubles.append(f"{path}: {mismatch}")
        self._check_accounts(path, capture)
        self._check_rows(path, capture, disks)

    def _check_accounts(self, path: Path, capture: Capture) -> None:
        try:
            if capture.metadata["complete"]:
                assert_accounts_close(capture, self.device)
            else:
                assert capture.counts["completions"] >= accounted(capture.counts)
        except AssertionError as error:
            self.troubles.append(f"{path}: its accounts do not close: {error}")

    def _check_rows(self, path: Path, capture: Capture, disks: Sequence[Disk]) -> None:
        claims = self.workers.claims()
        verdict = check(capture.table, capture.metadata, disks, claims, self.cgroups)
        lost = sum(layer.get("identity_lost", 0) for layer in capture.counts["layers"].values())
        if max(verdict.unknown, verdict.unknown_file) > lost:
            uncounted = f"{verdict.unknown} without process, {verdict.unknown_file} without file"
            self.troubles.append(f"{path}: {uncounted}, but {lost} identities lost")
        self.identities_lost += lost
        self.verdict.add(verdict)

    def format(self, disks: Sequence[Disk]) -> str:
        """The table at the end."""
        verdict = self.verdict
        processes = np.unique(self.workers.claims()[["pid", "pool"]])
        lines = [
            ("files", sum(len(disk.names) for disk in disks)),
            ("processes", len(processes)),
            ("rows", self.rows),
            ("rows of known files", verdict.rows),
            ("wrong process", verdict.wrong_process),
            ("wrong file", verdict.wrong_file),
            ("wrong cgroup", verdict.wrong_cgroup),
            ("of two files", verdict.astride),
            ("unknown process", verdict.unknown),
            ("unknown file", verdict.unknown_file),
            ("counted as unknown", self.identities_lost),
            *((f"lost: {cause}", count) for cause, count in sorted(self.lost.items())),
            ("captures", self.captures),
            ("recovered", self.recovered),
            ("refused to open", self.refused),
            ("other troubles", len(self.troubles)),
        ]
        table = "\n".join(f"{name:24}{value:>14,}" for name, value in lines)
        return "\n".join([table, *self.troubles[:20], *verdict.examples])
