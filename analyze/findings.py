# SPDX-License-Identifier: GPL-2.0-only
"""Runs every rule over a capture."""

from collections.abc import Callable, Iterator

from analyze import finding_shares, finding_times
from analyze.finding import Finding
from analyze.finding_facts import Facts
from analyze.opened import OpenedRows
from analyze.schema import BLOCK_LAYERS

# By the id of what they find.
RULES: dict[str, Callable[[Facts], Iterator[Finding]]] = {
    "errors": finding_shares.errors,
    "stall": finding_times.stalls,
    "waits-behind": finding_times.waits_behind,
    "flush-bound": finding_shares.flush_bound,
    "queue-wait": finding_shares.scheduler_wait,
    "periodic-bursts": finding_times.periodic_bursts,
    "small-sync-writes": finding_shares.small_sync_writes,
    "one-at-a-time": finding_shares.one_at_a_time,
    "small-sequential-reads": finding_shares.small_sequential_reads,
    "misaligned": finding_shares.misaligned,
    "discards": finding_shares.discards,
    "splits": finding_shares.splits,
    "requeues": finding_shares.requeues,
    "loop-on-file": finding_shares.loop_on_file,
}
_CONFIDENCE = ("high", "medium", "low")


def load_findings(capture: OpenedRows) -> tuple[Finding, ...]:
    """What the rules say, the surest first, of those the heaviest."""
    if capture.selection.layer not in (None, *BLOCK_LAYERS):
        return ()  # they are about devices
    facts = Facts(capture)
    found = [finding for rule in RULES.values() for finding in rule(facts)]
    found.sort(key=lambda finding: (_CONFIDENCE.index(finding.confidence), -finding.weight))
    return tuple(found)
