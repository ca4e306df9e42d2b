# SPDX-License-Identifier: GPL-2.0-only
"""Tries what a recording needs, each part by doing it."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analyze.errors import IorecError
from iorec.host.cgroups import is_io_controller_unified
from iorec.host.privileges import check_privileges, has_read_privilege
from iorec.kernel.layers import LAYERS
from iorec.kernel.libbpf import libbpf
from iorec.kernel.loader import Loading
from iorec.kernel.names import read_kernel_names
from iorec.kernel.plan import KernelFilter
from iorec.record.session import make_plan

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_READERS = ("duckdb", "numpy", "pyarrow", "matplotlib")
_BUFFER_BYTES = 16 << 20


@dataclass(frozen=True)
class Check:
    """One part: whether it works, what was seen, and what mends it.

    Recording works without a part that is not `is_needed`; then its captures say less.
    """

    name: str
    is_fine: bool
    is_needed: bool
    text: str
    hint: str


def run_checks() -> Iterator[Check]:
    """Each part in the order in which a recording needs them; takes some seconds."""
    yield _try("privileges", _privileges)
    yield _try("BTF", _btf)
    yield _try("libbpf", _libbpf)
    for layer in LAYERS:
        load = partial(_load, (*layer.needs, layer.name))
        yield _try(f"layer {layer.name}", load, is_needed=layer.is_block)
    yield _try("paths of files", _paths, is_needed=False)
    yield _try("writeback by cgroup", _cgroups, is_needed=False)
    yield _try("readers", _readers)


def describe_machine() -> str:
    """Versions of what a defect may depend on."""
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution")
    lockdown = _LOCKDOWN.read_text().strip() if _LOCKDOWN.exists() else "no lockdown"
    return (
        f"Linux {platform.release()} {platform.machine()} ({lockdown}), {system},"
        f" Python {platform.python_version()}"
    )


def _try(name: str, look: Callable[[], str], *, is_needed: bool = True) -> Check:
    try:
        return Check(name, True, is_needed, look(), "")
    except IorecError as error:
        return Check(name, False, is_needed, error.message, error.hint)
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        return Check(name, False, is_needed, str(error), "see README.md, Install")


def _privileges() -> str:
    check_privileges()
    return "enough to load kernel programs"


def _btf() -> str:
    read_kernel_names()
    return "the kernel describes its types"


def _libbpf() -> str:
    libbpf()
    return "libbpf.so.1"


def _load(layers: tuple[str, ...]) -> str:
    """Loads and attaches their programs, which are gone again then."""
    names = read_kernel_names()
    plan = make_plan(layers, _BUFFER_BYTES, names, KernelFilter())
    started_s = time.monotonic()
    with Loading() as loading:
        loading.begin(plan)
        loaded = loading.finish(lambda _: None)
    took_s = time.monotonic() - started_s
    loaded.close()
    return f"{len(loaded.programs)} programs run; loaded in {took_s:.1f} s"


def _paths() -> str:
    if not has_read_privilege():
        raise IorecError("files have numbers and no paths", "give iorec CAP_DAC_READ_SEARCH")
    return "files have paths"


def _cgroups() -> str:
    if not is_io_controller_unified():
        raise IorecError(
            "the kernel charges I/O to cgroups of version 1, or to none: no charged_cgroup",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    return "buffered writes name the cgroup that wrote"


def _readers() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _READERS)
