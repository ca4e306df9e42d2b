"""Resolves what the user wants recorded to what the kernel programs compare."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyze.errors import IorecError
from iorec.cgroups import cgroup_root
from iorec.devices import dev_of_numbers
from iorec.kernel_names import KernelNames
from iorec.plan import LAYERS, KernelFilter


@dataclass(frozen=True)
class Filters:
    """What the user asked for, as typed; an empty tuple asks for everything."""

    device: tuple[str, ...] = ()
    pid: tuple[int, ...] = ()
    comm: tuple[str, ...] = ()
    cgroup: tuple[str, ...] = ()
    op: tuple[str, ...] = ()
    min_latency_ns: int | None = None
    include_self: bool = False

    def as_metadata(self) -> dict[str, Any]:
        """The filters as the capture's metadata lists them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def resolve_filters(filters: Filters, names: KernelNames) -> KernelFilter:
    """Raises IorecError for a device, pid, cgroup or operation that does not exist."""
    return KernelFilter(
        devices=tuple(_device(name) for name in filters.device),
        pids=tuple(_pid(pid) for pid in filters.pid),
        comms=filters.comm,
        cgroup_folders=tuple(str(_cgroup(path)) for path in filters.cgroup),
        ops=tuple(number for name in filters.op for number in _op(name, names)),
        min_latency_ns=filters.min_latency_ns,
        excluded_pid=None if filters.include_self else os.getpid(),
    )


def resolve_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of options such as `request,bio`, each once."""
    wanted = {layer for name in names for layer in name.split(",")}
    for layer in wanted - set(LAYERS):
        raise IorecError(f"no layer {layer!r}", f"there are: {', '.join(LAYERS)}", exit_code=2)
    return tuple(layer for layer in LAYERS if layer in wanted)


def _device(name: str) -> tuple[int, int | None]:
    real = os.path.realpath(name) if name.startswith("/") else name
    folder = Path("/sys/class/block") / real.removeprefix("/dev/").replace("/", "!")
    try:
        if not (folder / "partition").exists():
            return dev_of_numbers((folder / "dev").read_text()), None
        disk = folder.resolve().parent
        return dev_of_numbers((disk / "dev").read_text()), int((folder / "partition").read_text())
    except OSError as error:
        known = ", ".join(_sorted_names(Path("/sys/block")))
        raise IorecError(f"no block device {name}", f"there are: {known}") from error


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
    numbers = [number for number, op in names.ops.items() if op == name]
    if not numbers:
        known = ", ".join(dict.fromkeys(op for op in names.ops.values() if op != "last"))
        raise IorecError(f"no operation {name}", f"there are: {known}", exit_code=2)
    return numbers


def _sorted_names(folder: Path) -> Sequence[str]:
    return sorted(path.name.replace("!", "/") for path in folder.iterdir())
