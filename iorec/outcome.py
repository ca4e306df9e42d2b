"""Words what a finished recording is worth.

To be imported when privileges are dropped: the analysis starts threads, and each would keep them.
"""

import json
from dataclasses import dataclass
from typing import Any

from analyze.completeness import make_completeness_of
from analyze.metadata import parse_metadata
from analyze.units import format_bytes, format_count, format_duration
from analyze.verdict import advise, format_completeness
from iorec.messages import format_unmatched
from iorec.recording import Result


def format_end(result: Result) -> str:
    """What was recorded, what was lost, and the next command."""
    counts = result.metadata["counts"]
    duration = format_duration(result.metadata["duration_s"] * 1e9)
    layers = counts.get("layers") or {"request": counts}  # earlier captures have but one
    recorded = " and ".join(
        f"{format_count(layers[layer]['recorded'])} {layer if len(layers) > 1 else 'I/O'}s, "
        f"{format_bytes(_recorded_bytes(counts, layer))}"
        for layer in layers
    )
    return "\n".join(
        (
            f"{recorded} in {duration}; {format_count(result.lost)} lost",
            f"{result.path} ({format_bytes(result.size_bytes)})",
            f"next: iorec report {result.path}",
        )
    )


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a finished capture, however quiet the recording was asked to be."""

    is_complete: bool
    message: str
    warnings: tuple[str, ...]
    hint: str  # what would have helped


def verdict(result: Result) -> Verdict:
    """Whether the capture holds every I/O that was asked for, and if not, why."""
    metadata = parse_metadata(json.dumps(result.metadata).encode())
    completeness = make_completeness_of(metadata)
    message, advice = format_completeness(completeness), advise(completeness)
    warnings = [] if completeness.is_complete else [message, *advice]
    counts = result.metadata["counts"]
    rows = counts["recorded"] + counts["in_flight_at_stop"]
    warnings.append(format_unmatched(result.metadata["filters"], rows, counts["filtered"]))
    return Verdict(
        is_complete=bool(completeness.is_complete),
        message=message,
        warnings=tuple(f"warning: {line}" for line in warnings if line),
        hint=advice[0] if advice else "see what iorec report says of it",
    )


def _recorded_bytes(counts: dict[str, Any], layer: str) -> int:
    return sum(row["recorded_bytes"] for row in counts["devices"] if row["layer"] == layer)
