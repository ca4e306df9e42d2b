# SPDX-License-Identifier: GPL-2.0-only
"""Says when a recording stops by itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """When to stop by itself; None: never."""

    duration_ns: int | None = None
    count: int | None = None
    max_size_bytes: int | None = None
    kept_files: int | None = None  # go on in a new file at the greatest size; keep the newest ones

    @property
    def is_rotating(self) -> bool:
        """Whether the greatest size begins a new file instead of ending the recording."""
        return self.kept_files is not None
