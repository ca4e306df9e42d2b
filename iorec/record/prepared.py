# SPDX-License-Identifier: GPL-2.0-only
"""What a recording has at hand when its privileges are dropped."""

from collections.abc import Callable
from dataclasses import dataclass

from iorec.host.inode_paths import FilePaths
from iorec.host.signals import SignalWaiter
from iorec.host.workload import Workload
from iorec.kernel.loader import Loading
from iorec.kernel.names import KernelNames
from iorec.kernel.plan import Plan
from iorec.kernel.symbols import KernelSymbols
from iorec.record.device_watch import DeviceWatch
from iorec.record.progress import Progress
from iorec.record.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """All of it is opened, and closed, by iorec.record.session.

    `announce` is called when recording is about to begin, and told whether the programs print to
    trace_pipe.
    """

    settings: Settings
    names: KernelNames
    plan: Plan
    loading: Loading
    paths: FilePaths
    devices: DeviceWatch
    workload: Workload | None
    signals: SignalWaiter
    progress: Progress
    announce: Callable[[bool], None]
    symbols: KernelSymbols | None  # for the layer wait
