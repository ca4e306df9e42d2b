# SPDX-License-Identifier: GPL-2.0-only
"""What a capture says of itself: its metadata as dataclasses, which are written and read."""

# The recorder imports it before it drops its privileges: without Arrow, which starts threads.
import json
from dataclasses import dataclass, field

from analyze.errors import IorecError
from analyze.replayed import Replay
from analyze.typed_json import LEFT_OUT_IF_NONE, EpochNs, FieldError, SignedInt, parse_object

# Version history
#   1  first version: one row per finished or in-flight I/O, metadata under the key `iorec`;
#      later additions, null in captures without them: the columns from `bios` on
#   2  an empty preflush (of an fsync) is `flush` without an offset, no longer a `write` of 0 bytes
#      at 0; the device's own cache flush, which it causes, is `cache_flush`, no longer `flush`
FORMAT_VERSION = 2
MAX_METADATA_BYTES = 4 << 20


@dataclass(frozen=True)
class ClockReading:
    """The two clocks read at one moment."""

    monotonic_ns: int
    realtime_ns: int

    @property
    def offset_ns(self) -> int:
        """What monotonic time lacks to wall-clock time."""
        return self.realtime_ns - self.monotonic_ns

    def time_at(self, monotonic_ns: int) -> EpochNs:
        """The wall-clock time at another moment, by this reading."""
        return EpochNs(monotonic_ns + self.offset_ns)


@dataclass(frozen=True)
class ClockStep:
    """A jump of the wall clock while recording."""

    time: EpochNs
    step_ns: SignedInt


@dataclass(frozen=True)
class Clock:
    """How the wall clock ran against the monotonic one."""

    start: ClockReading
    stop: ClockReading
    steps: tuple[ClockStep, ...]


@dataclass(frozen=True)
class Workload:
    """The command that was recorded; the status is None if it was still running."""

    argv: tuple[str, ...]
    exit_status: int | None


@dataclass(frozen=True)
class Filters:
    """What the recording was narrowed to; an empty tuple means everything."""

    device: tuple[str, ...]
    pid: tuple[int, ...]
    comm: tuple[str, ...]
    cgroup: tuple[str, ...]
    op: tuple[str, ...]
    min_latency_ns: int | None
    include_self: bool
    resolved_device: tuple[str, ...] = ()  # what globs and mount points in `device` stand for
    syscall: tuple[str, ...] = ()  # of the layer syscall; empty: those by default


@dataclass(frozen=True)
class Partition:
    """A partition and its place on the disk."""

    name: str
    number: int
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Device:
    """A block device as it was while recording."""

    name: str
    major: int
    minor: int
    model: str | None
    size_bytes: int | None
    logical_block_size: int | None
    rotational: bool | None
    scheduler: str | None
    nr_requests: int | None
    has_requests: bool | None = None  # False: it takes bios only
    partitions: tuple[Partition, ...]
    stands_on: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """A span of time in which I/Os were lost, for one of LOSS_CAUSES."""

    start: EpochNs
    stop: EpochNs
    lost: int
    cause: str = "ring_full"


@dataclass(frozen=True, kw_only=True)
class DeviceCounts:
    """The ledger of one device and diskstats group (read, write, discard, flush, other).

    The group `flush` are the device's own cache flushes; an fsync's flush is a write of 0 bytes.
    """

    layer: str
    device: str | None
    op: str
    recorded: int
    recorded_bytes: int
    filtered: int
    filtered_bytes: int
    lost: int
    lost_bytes: int
    missed: int = 0  # of `lost`, those whose completion was not seen
    failed: int | None = None  # of `recorded`, those that ended with an error
    missed_bytes: int = 0
    began_before: int
    began_before_bytes: int


@dataclass(frozen=True)
class DeviceEvents:
    """What the block layer did with the I/Os of one device and diskstats group.

    A bio that may not wait for a request is refused where none is free, and submitted again.
    """

    device: str | None
    op: str
    merges: int
    splits: int
    requeues: int
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerCounts:
    """What became of every completion that the kernel reported.

    `identity_lost` of the recorded ones are rows whose submitter is unknown for lack of room.
    `left_out` counts by reason what cannot be recorded; it is not among the completions.
    """

    completions: int
    recorded: int
    filtered: int
    began_before: int
    continuations: int
    refused: int = 0
    identity_lost: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    in_flight_at_stop: int
    lost: dict[str, int]

    @property
    def row_count(self) -> int:
        """The rows: I/Os that ended, and those in flight at the stop."""
        return self.recorded + self.in_flight_at_stop

    @property
    def lost_completions(self) -> int:
        """Lost I/Os that the kernel reported as completed, so that they are in `completions`."""
        return sum(count for cause, count in self.lost.items() if cause != "missed_completion")

    @property
    def unaccounted(self) -> int:
        """Completions that are in no account: 0 if it closes."""
        explained = self.recorded + self.filtered + self.began_before + self.continuations
        return self.completions - explained - self.refused - self.lost_completions


@dataclass(frozen=True, kw_only=True)
class Counts(LayerCounts):
    """The ledger: the sums over all layers, each layer, and each device.

    `layers` and `events` are empty in captures from before bios were recorded.
    """

    layers: dict[str, LayerCounts] = field(default_factory=dict)
    merged: int
    requeued: int = 0
    missed_events: int = 0  # merges, splits and requeues that no program took
    in_flight_at_start: int
    devices: tuple[DeviceCounts, ...]
    events: tuple[DeviceEvents, ...] = ()
    gaps: tuple[Gap, ...]

    @property
    def by_layer(self) -> dict[str, LayerCounts]:
        """The ledger of each layer."""
        return self.layers or {"request": self}


@dataclass(frozen=True)
class Diskstats:
    """What /proc/diskstats counted; `edge_ios` of them may lie outside the recording.

    `edge_bytes` are theirs; None if that is not known.
    """

    ios: int
    bytes: int
    edge_ios: int
    edge_bytes: int | None = None


@dataclass(frozen=True)
class Recorder:
    """What the recording itself cost."""

    cpu_user_s: float
    cpu_system_s: float
    peak_memory_bytes: int
    buffer_bytes: int
    kernel_memory_bytes: int | None = None


@dataclass(frozen=True)
class Note:
    """What went wrong beside the recording of I/Os, which went on; `count` times."""

    what: str
    message: str
    first: EpochNs
    last: EpochNs
    count: int


@dataclass(frozen=True)
class FiredTrigger:
    """Why a flight recorder wrote the capture: the condition that was met, when, and by what."""

    condition: str
    at: EpochNs
    cause: str


@dataclass(frozen=True)
class Metadata:
    """Everything that a capture says of itself.

    `complete` is whether the recording ended in order, so that the end of it is there; whether
    every I/O is, analyze.completeness says. `counts` is None for rows that nobody accounted for.
    """

    format_version: int
    iorec_version: str
    hostname: str
    kernel: str
    machine: str
    cpus: int
    command: tuple[str, ...]
    workload: Workload | None
    started_at: EpochNs
    stopped_at: EpochNs
    duration_s: float
    clock: Clock | None
    filters: Filters
    layers: tuple[str, ...]
    devices: tuple[Device, ...]
    counts: Counts | None
    diskstats: dict[str, dict[str, Diskstats]]
    recorder: Recorder | None
    complete: bool
    boot_id: str | None = None
    cgroup_version: int | None = None  # 1: cgroups of that version are in use, and not in the rows
    notes: tuple[Note, ...] = ()
    trigger: FiredTrigger | None = None
    replay: Replay | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


def parse_metadata(data: bytes, source: str = "the capture") -> Metadata:
    """Reads the JSON object; an error names `source` and the field that is wrong.

    Fields that it does not know are left out, so a later release may add some.
    """
    if len(data) > MAX_METADATA_BYTES:
        raise _damaged(source, f"its metadata takes {len(data):,} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(source, "its metadata is not valid JSON") from error
    if not isinstance(document, dict):
        raise _damaged(source, "its metadata is not a JSON object")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IorecError(
            f"cannot read {source}: its format is version {version},"
            f" this iorec reads up to version {FORMAT_VERSION}",
            "update iorec, or read the capture with the iorec that made it",
        )
    try:
        metadata = parse_object(Metadata, document)
    except FieldError as error:
        raise _damaged(source, f"in its metadata {str(error)[:200]}") from error
    if metadata.stopped_at < metadata.started_at:
        raise _damaged(source, "its metadata says that it stopped before it started")
    return metadata


def _damaged(source: str, cause: str) -> IorecError:
    return IorecError(
        f"cannot read {source}: {cause}",
        "the file is damaged or was not written by iorec; get a fresh copy of it",
    )
