# SPDX-License-Identifier: GPL-2.0-only
"""Resolves what the user wants recorded to what the kernel programs compare."""

import difflib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analyze.errors import IorecError
from analyze.metadata import Filters
from analyze.units import format_duration
from iorec.host.cgroups import cgroup_root
from iorec.kernel.calls import FIRST_CALL_OP, resolve_calls
from iorec.kernel.comm_glob import LONGEST_NAME, glob_masks, is_glob
from iorec.kernel.layers import BLOCK_LAYER_NAMES, LAYER_NAMES, LAYERS, SYSCALL, layers_of
from iorec.kernel.names import KernelNames
from iorec.kernel.offered import lacking_layers
from iorec.kernel.plan import KernelFilter
from iorec.record.filter_devices import device_key, resolve_device

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_MOST_DEVICES, _MOST_PIDS, _MOST_COMMS = 1024, 1024, 64  # of bpf/filter.c


def filter_options(filters: Filters) -> str:
    """The options that ask for them: `-d sda -c 'postgres*'`."""
    latency_ns = filters.min_latency_ns
    named: tuple[tuple[str, Sequence[str | int]], ...] = (
        ("-d", filters.device),
        ("-p", filters.pid),
        ("-c", filters.comm),
        ("--cgroup", filters.cgroup),
        ("--op", filters.op),
        ("--syscall", filters.syscall),
        ("--min-latency", [format_duration(latency_ns)] if latency_ns else []),
    )
    return " ".join(f"{name} {shlex.quote(str(v))}" for name, values in named for v in values)


def make_filters(
    layers: Sequence[str],
    devices: Sequence[str] | None,
    pids: Sequence[int] | None,
    comms: Sequence[str] | None,
    cgroups: Sequence[str] | None,
    ops: Sequence[str] | None,
    min_latency_ns: int | None,
    calls: Sequence[str] | None,
    *,
    include_self: bool,
) -> Filters:
    """What options say, with the devices as they are now; IorecError for what names none.

    Also for what none of the layers could be filtered by.
    """
    filters = Filters(
        tuple(devices or ()),
        tuple(pids or ()),
        tuple(comms or ()),
        tuple(cgroups or ()),
        tuple(ops or ()),
        min_latency_ns,
        include_self=include_self,
        syscall=resolve_calls(calls or ()),
    )
    _check_layers(layers, filters)
    found = {name for wanted in filters.device for name in resolve_device(wanted)}
    if len(found) > _MOST_DEVICES:
        raise IorecError(
            f"{', '.join(filters.device)} matches {len(found):,} devices",
            f"leave -d out, or name at most {_MOST_DEVICES:,}",
        )
    return replace(filters, resolved_device=tuple(sorted(found)))


def resolve_filters(
    filters: Filters, names: KernelNames, finder_pid: int | None = None
) -> KernelFilter:
    """Raises IorecError for a name, pid, cgroup or operation that cannot exist.

    The process that finds paths is the recorder's own, too.
    """
    for name in filters.comm:
        if is_glob(name):
            glob_masks(name)
        else:
            _check_comm(name)
    pid_namespace = _pid_namespace()
    if filters.pid and pid_namespace is not None:
        raise IorecError(
            "-p cannot be told here: this pid namespace has other numbers than the kernel",
            "record from the host's (docker run --pid=host), or choose by -c or --cgroup",
        )
    if len(filters.comm) > _MOST_COMMS:
        raise IorecError("too many -c", f"give at most {_MOST_COMMS}, or a glob", exit_code=2)
    if len(filters.pid) > _MOST_PIDS:
        raise IorecError("too many -p", f"give at most {_MOST_PIDS}, or a --cgroup", exit_code=2)
    return KernelFilter(
        devices=tuple(map(device_key, filters.resolved_device)),
        pids=tuple(_pid(pid) for pid in filters.pid),
        comms=tuple(name for name in filters.comm if not is_glob(name)),
        comm_globs=tuple(name for name in filters.comm if is_glob(name)),
        cgroup_folders=tuple(str(_cgroup(path)) for path in filters.cgroup),
        ops=tuple(number for name in filters.op for number in _op(name, names)),
        min_latency_ns=filters.min_latency_ns,
        excluded_pid=None if filters.include_self else os.getpid(),
        excluded_finder_pid=None if filters.include_self else finder_pid,
        pid_namespace=pid_namespace,
    )


def resolve_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of options such as `request,bio`, each once; `all` that this kernel offers."""
    wanted = {layer for name in names for layer in name.split(",")}
    for layer in sorted(wanted - {*LAYER_NAMES, "all"}):
        like = difflib.get_close_matches(layer, LAYER_NAMES, 1)
        hint = f"did you mean {like[0]}?" if like else f"there are: {', '.join(LAYER_NAMES)}, all"
        raise IorecError(f"no layer {layer!r}", hint, exit_code=2)
    if "all" in wanted:
        wanted |= set(LAYER_NAMES) - lacking_layers().keys()
    return tuple(layer.name for layer in LAYERS if layer.name in wanted)


def why_lacking(names: Sequence[str]) -> tuple[str, ...]:
    """Why some of `all` layers are not recorded; nothing if not all were asked for."""
    has_all = any("all" in name.split(",") for name in names)
    return tuple(lacking_layers().values()) if has_all else ()


def _check_layers(layers: Sequence[str], filters: Filters) -> None:
    others = [layer for layer in layers if layer not in BLOCK_LAYER_NAMES]
    if filters.syscall and SYSCALL.name not in layers:
        raise IorecError(
            "--syscall chooses from the layer syscall, which is not recorded",
            "add it: --layer syscall, or --layer syscall,request",
            exit_code=2,
        )
    for layer in layers_of(layers):
        if missing := {*layer.needs}.difference(layers):
            raise IorecError(
                f"the layer {layer.name} needs the layer {', '.join(missing)}",
                f"record both: --layer {','.join((*layer.needs, layer.name))}",
                exit_code=2,
            )
    if filters.device and others:
        raise IorecError(
            f"-d cannot be told of the layer {others[0]}, which is about files",
            "leave out one of the two; -p, -c and --cgroup choose from all layers",
            exit_code=2,
        )
    if filters.op and len(others) == len(layers):
        raise IorecError(
            "--op chooses block I/Os, and no layer with them is recorded",
            "choose system calls: --syscall pread64,pwrite64",
            exit_code=2,
        )


def _check_comm(name: str) -> None:
    size = len(name.encode(errors="surrogateescape"))
    if size <= LONGEST_NAME:
        return
    kept = name.encode(errors="surrogateescape")[:LONGEST_NAME].decode(errors="ignore")
    ways = [f"a glob: -c {shlex.quote(f'{kept[:-1]}*')}"]
    if len(kept.encode()) == LONGEST_NAME:  # not cut within a character
        ways.insert(0, f"what it keeps: -c {shlex.quote(kept)}")
    raise IorecError(
        f"no thread's name is {name!r}: the kernel keeps {LONGEST_NAME} bytes of it, not {size}",
        f"give {', or '.join(ways)}",
        exit_code=2,
    )


def _pid_namespace() -> tuple[int, int] | None:
    """The device and inode of a pid namespace in which numbers are not the kernel's; else None."""
    status = Path("/proc/self/ns/pid").stat()
    is_initial = status.st_ino == _INITIAL_PID_NAMESPACE
    return None if is_initial else (status.st_dev, status.st_ino)


def _pid(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError as error:
        raise IorecError(
            f"no process {pid}", "-p takes the id of a running process: see ps -e"
        ) from error
    leader = int(status.partition("Tgid:")[2].split()[0])
    if leader != pid:
        raise IorecError(
            f"{pid} is a thread, not a process", f"its process is {leader}: -p {leader}"
        )
    return pid


def _cgroup(path: str) -> Path:
    root = cgroup_root()
    if root is None:
        raise IorecError(
            "no cgroup2 hierarchy is mounted", "mount it: mount -t cgroup2 none /sys/fs/cgroup"
        )
    folder = Path(path) if path.startswith(f"{root}/") else root / path.lstrip("/")
    if not (folder / "cgroup.procs").exists():
        raise IorecError(
            f"no cgroup {path} in {root}",
            "give its path as in /proc/PID/cgroup, e.g. /system.slice/postgresql.service",
        )
    return folder


def _op(name: str, names: KernelNames) -> list[int]:
    ops = {number: op for number, op in names.ops.items() if number < FIRST_CALL_OP}
    numbers = [number for number, op in ops.items() if op == name]
    if not numbers:
        known = ", ".join(dict.fromkeys(op for op in ops.values() if op != "last"))
        raise IorecError(f"no operation {name}", f"there are: {known}", exit_code=2)
    return numbers
