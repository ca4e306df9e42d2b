"""Says when a recording stops by itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """When to stop by itself; None: never."""

    duration_ns: int | None = None
    count: int | None = None
    max_size_bytes: int | None = None
