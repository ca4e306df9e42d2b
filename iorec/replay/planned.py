# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a replay before its first I/O, as the feeder tells the loop's process."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlannedTarget:
    """What is done on one target; `end_bytes` is where its last I/O ends."""

    source: str
    source_size_bytes: int | None
    source_scheduler: str | None
    source_nr_requests: int | None
    source_block_size: int | None
    ios: dict[str, int]  # by what they become
    bytes: int
    written_bytes: int
    first_byte: int
    end_bytes: int
    largest_read: int
    largest_write: int
    largest_bytes: int

    @property
    def file_bytes(self) -> int:
        """How large a new file is made."""
        return max(self.end_bytes, self.source_size_bytes or 0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is known before the first I/O."""

    source_digest: str
    targets: tuple[PlannedTarget, ...]
    first_ns: int
    last_ns: int
    left_out: dict[str, int]
    moved: int
    split: int  # larger than one request of the target
    waiting_threads: int
    other_threads: int
    begin_s: float | None
    end_s: float | None

    @property
    def ios(self) -> int:
        """All I/Os that are to be done."""
        return sum(sum(target.ios.values()) for target in self.targets)

    @property
    def bytes(self) -> int:
        """Of all I/Os."""
        return sum(target.bytes for target in self.targets)

    @property
    def span_ns(self) -> int:
        """From the first to the last I/O, as they were recorded."""
        return max(self.last_ns - self.first_ns, 0)
