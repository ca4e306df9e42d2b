# SPDX-License-Identifier: GPL-2.0-only
"""Opens what a replay is done on: a whole block device, or a file; never what is in use."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analyze.errors import IorecError
from analyze.replayed import QueueSettings
from iorec.host.device_inventory import describe_device
from iorec.host.devices import dev_of_user, numbers_of_dev
from iorec.host.workload import invoking_user
from iorec.replay.guard import find_signatures, find_users, is_partition
from iorec.replay.queues import read_queue
from iorec.replay.settings import Mapping, Permission

_FILE_BLOCKS = (512, 4096)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What does the I/Os of a device of the capture; `size_bytes` is None for a new file.

    Where the largest discard or write_zeroes is 0, it has none; None: any.
    `warnings` are what is to be said of one that is only read.
    """

    source: str
    path: Path
    name: str  # as the recorder has it, or the path of a file
    fd: int
    numbers: str | None  # MAJOR:MINOR; None of a file
    size_bytes: int | None
    logical_block_size: int
    model: str | None
    serial: str | None
    has_requests: bool
    largest_discard_bytes: int | None
    largest_zeroes_bytes: int | None
    largest_kb: int | None  # that max_sectors_kb may be
    queue: QueueSettings
    is_written: bool
    warnings: tuple[str, ...]

    @property
    def is_device(self) -> bool:
        """Whether a recorder sees its I/Os under its own name."""
        return self.numbers is not None


@contextlib.contextmanager
def open_targets(
    mappings: Sequence[Mapping], permission: Permission, *, is_dry: bool
) -> Iterator[tuple[Target, ...]]:
    """Opens them all, exclusively; no new file is made if `is_dry`."""
    _check_names(mappings, permission)
    with contextlib.ExitStack() as stack:
        targets = []
        for mapping in mappings:
            target = _open_target(mapping, permission, is_dry=is_dry)
            if target.fd >= 0:
                stack.callback(os.close, target.fd)
                if target.size_bytes is None:
                    stack.push(partial(_remove_unused, target))
            targets.append(target)
        _check_distinct(targets)
        yield tuple(targets)


def _check_names(mappings: Sequence[Mapping], permission: Permission) -> None:
    sources = [mapping.source for mapping in mappings]
    twice = next((name for name in sources if sources.count(name) > 1), None)
    if twice is not None:
        raise IorecError(f"--map names {twice} twice", "give each device one target", exit_code=2)
    for option, paths in (
        ("--allow-writes", permission.writes),
        ("--destroy-data", permission.destroys),
    ):
        for path in paths:
            if not any(_is_same(path, mapping.target) for mapping in mappings):
                raise IorecError(
                    f"{option} {path} is the target of no --map",
                    "name the target as --map does",
                    exit_code=2,
                )
    for path in permission.destroys:
        if not any(_is_same(path, other) for other in permission.writes):
            raise IorecError(
                f"--destroy-data {path} without --allow-writes {path}", "give both", exit_code=2
            )


def _is_same(one: Path, other: Path) -> bool:
    try:
        first, second = one.stat(), other.stat()
    except OSError:
        return one.absolute() == other.absolute()
    if stat.S_ISBLK(first.st_mode) and stat.S_ISBLK(second.st_mode):
        return first.st_rdev == second.st_rdev
    return os.path.samestat(first, second)


def _check_distinct(targets: Sequence[Target]) -> None:
    for number, target in enumerate(targets):
        for other in targets[:number]:
            if _is_same(target.path, other.path):
                raise IorecError(
                    f"{target.path} and {other.path} are the same target",
                    "give each device of the capture one of its own",
                    exit_code=2,
                )


def _open_target(mapping: Mapping, permission: Permission, *, is_dry: bool) -> Target:
    path = mapping.target
    is_written = any(_is_same(path, allowed) for allowed in permission.writes)
    try:
        info = path.stat()
    except FileNotFoundError as error:
        if is_written and path.parent.is_dir() and not path.is_symlink():
            return _new_file(mapping, is_dry=is_dry)
        hint = "name a block device; a new file is made only for --allow-writes"
        raise IorecError(f"there is no target {path}", hint) from error
    except OSError as error:
        raise IorecError(f"cannot open {path}: {error.strerror}", "check the name") from error
    if not (stat.S_ISBLK(info.st_mode) or stat.S_ISREG(info.st_mode)):
        raise IorecError(f"{path} is neither a block device nor a file", "name a whole device", 2)
    if stat.S_ISBLK(info.st_mode) and is_partition(dev_of_user(info.st_rdev)):
        raise IorecError(f"{path} is a partition", "name a whole device: rows know no other", 2)
    if is_written:
        _check_unused(path)
    fd, warnings = _open(path, info, is_written=is_written)
    try:
        if is_written:
            # Only now, as nobody else can take a device any more, and of what was opened.
            _check_unused(path)
            may_destroy = any(_is_same(path, allowed) for allowed in permission.destroys)
            _check_empty(path, fd, may_destroy=may_destroy)
        _check_still(path, fd, info)
        return _describe(mapping, info, fd, warnings, is_written=is_written)
    except BaseException:
        os.close(fd)
        raise


def _check_unused(path: Path) -> None:
    users = find_users(path)
    if users:
        raise IorecError(
            f"{path} is in use: {'; '.join(users)}",
            "take another target, or end what uses it: nothing overrules this",
        )


def _check_still(path: Path, fd: int, looked_at: os.stat_result) -> None:
    """Sees to it that what was looked at, what was opened and what has the name are one."""
    for found in (os.fstat(fd), path.stat()):
        if not os.path.samestat(found, looked_at) or found.st_rdev != looked_at.st_rdev:
            raise IorecError(f"{path} has become another file meanwhile", "see who changes it")


def _check_empty(path: Path, fd: int, *, may_destroy: bool) -> None:
    found = [] if may_destroy else find_signatures(path, fd)
    if found:
        raise IorecError(
            f"{path} may hold data: {'; '.join(found)}",
            f"take another target, or give that up with --destroy-data {path}",
        )


def _open(path: Path, info: os.stat_result, *, is_written: bool) -> tuple[int, tuple[str, ...]]:
    """The file descriptor, and what is to be said; exclusive, unless it is only read and in use."""
    flags = (os.O_RDWR if is_written else os.O_RDONLY) | os.O_DIRECT | os.O_CLOEXEC
    exclusive = os.O_EXCL if stat.S_ISBLK(info.st_mode) else 0
    try:
        return os.open(path, flags | exclusive), ()
    except OSError as error:
        cause = error
    if cause.errno == errno.EBUSY and not is_written:
        users = "; ".join(find_users(path)) or "by whom cannot be seen"
        return os.open(path, flags), (f"{path} is in use ({users}), which changes latencies",)
    if cause.errno == errno.EINVAL and stat.S_ISREG(info.st_mode):
        hint = "choose another file system: this one has no direct I/O"
    elif cause.errno == errno.EBUSY:
        hint = "it is mounted, perhaps in another namespace, or part of another device"
    else:
        hint = "run it as root"
    raise IorecError(f"cannot open {path}: {cause.strerror}", hint) from cause


def _describe(
    mapping: Mapping,
    info: os.stat_result,
    fd: int,
    warnings: tuple[str, ...],
    *,
    is_written: bool,
) -> Target:
    if stat.S_ISREG(info.st_mode):
        return _file(mapping, fd, info.st_size, is_written=is_written)
    dev = dev_of_user(info.st_rdev)
    folder = Path(f"/sys/dev/block/{numbers_of_dev(dev)}").resolve()
    device = describe_device(folder)
    if device is None or not device.size_bytes:
        raise IorecError(f"{mapping.target} has no size", "see that it is there: lsblk")
    if is_written and _first_text(folder / "ro") != "0":  # it may be opened for writing even so
        raise IorecError(
            f"{mapping.target} is read-only", "take another target, or leave out --allow-writes"
        )
    return Target(
        source=mapping.source,
        path=mapping.target,
        name=device.name,
        fd=fd,
        numbers=numbers_of_dev(dev),
        size_bytes=device.size_bytes,
        logical_block_size=device.logical_block_size or 512,
        model=device.model,
        serial=_first_text(folder / "device/serial", folder / "serial", folder / "device/wwid"),
        has_requests=bool(device.has_requests),
        largest_discard_bytes=_number(folder / "queue/discard_max_bytes"),
        largest_zeroes_bytes=_number(folder / "queue/write_zeroes_max_bytes"),
        largest_kb=_number(folder / "queue/max_hw_sectors_kb") or None,
        queue=read_queue(folder),
        is_written=is_written,
        warnings=warnings,
    )


def _new_file(mapping: Mapping, *, is_dry: bool) -> Target:
    """A sparse file, which gets its size when the plan is made."""
    if is_dry:
        return _file(mapping, -1, None, is_written=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_DIRECT | os.O_CLOEXEC
    try:
        fd = os.open(mapping.target, flags, 0o600)
    except OSError as error:
        raise IorecError(
            f"cannot create {mapping.target}: {error.strerror}", "name another target"
        ) from error
    if (user := invoking_user()) is not None:
        os.fchown(fd, user.uid, user.gid)
    return _file(mapping, fd, None, is_written=True)


def _remove_unused(target: Target, kind: type[BaseException] | None, *_: object) -> None:
    """Removes a new file at an error before anything was written to it."""
    with contextlib.suppress(OSError):
        made = os.fstat(target.fd)
        if kind is not None and not made.st_blocks and os.path.samestat(made, target.path.lstat()):
            target.path.unlink()


def _file(mapping: Mapping, fd: int, size_bytes: int | None, *, is_written: bool) -> Target:
    return Target(
        source=mapping.source,
        path=mapping.target,
        name=str(mapping.target),
        fd=fd,
        numbers=None,
        size_bytes=size_bytes,
        logical_block_size=_file_block(fd) if size_bytes else _FILE_BLOCKS[0],
        model=None,
        serial=None,
        has_requests=False,
        largest_discard_bytes=0,
        largest_zeroes_bytes=None,
        largest_kb=None,
        queue=QueueSettings(),
        is_written=is_written,
        warnings=("it is a file: no recorder sees its I/Os, so that only the loop judges",),
    )


def _file_block(fd: int) -> int:
    """The smallest direct I/O that its file system takes."""
    import mmap

    with mmap.mmap(-1, _FILE_BLOCKS[-1]) as buffer:
        for size in _FILE_BLOCKS:
            with contextlib.suppress(OSError), memoryview(buffer)[:size] as view:
                os.preadv(fd, [view], size)
                return size
    return _FILE_BLOCKS[-1]


def _number(path: Path) -> int:
    """What a file of a queue says, 0 if this kernel has none."""
    text = _first_text(path)
    return int(text) if text and text.isdigit() else 0


def _first_text(*paths: Path) -> str | None:
    for path in paths:
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace").strip(" \n\0")
            if text:
                return text
    return None
