# SPDX-License-Identifier: GPL-2.0-only
"""Prepares a recording: everything that needs privileges, before they are dropped."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from analyze.capture_name import CaptureName
from iorec.host.cgroups import is_io_controller_unified
from iorec.host.devices import read_request_capacity
from iorec.host.inode_paths import FilePaths
from iorec.host.privileges import drop_privileges
from iorec.host.signals import SignalWaiter
from iorec.host.workload import Workload, invoking_user
from iorec.kernel.calls import DEFAULT_CALLS
from iorec.kernel.layers import WAIT, layers_of
from iorec.kernel.loader import Loading
from iorec.kernel.names import KernelNames, read_kernel_names
from iorec.kernel.plan import SLOTS_PER_BUCKET, KernelFilter, Plan
from iorec.kernel.symbols import read_kernel_symbols
from iorec.record.device_watch import DeviceWatch
from iorec.record.filters import resolve_filters
from iorec.record.output import open_output
from iorec.record.prepared import Prepared
from iorec.record.progress import Progress
from iorec.record.settings import FlightPlan, Settings
from iorec.store.folder import Folder

if TYPE_CHECKING:
    from iorec.store.result import FlightResult, Result

# Eight slots for each request that fits into the queues: then eight of them share a bucket of
# eight with a probability below 1e-6. At least 64 Ki, for devices that are added later.
_SLOTS_PER_REQUEST = 8
_FEWEST_SLOTS = 1 << 16
# Of all layers together: 18 MiB. Queues of more requests are never full at once.
MOST_SLOTS = 1 << 18


def record_session(
    capture: CaptureName,
    settings: Settings,
    progress: Progress,
    announce: Callable[[bool], None],
) -> "Result":
    """Record and write the capture; `announce` is that of Prepared.

    An error before the first row leaves nothing behind, and so does a stop signal, which raises
    KeyboardInterrupt. After it the spool is left, and the error says how to recover it.
    """
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        output = stack.enter_context(open_output(capture, settings, invoking_user()))
        prepared = stack.enter_context(prepare(settings, signals, progress, announce))
        # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
        from iorec.record.recording import record_and_convert

        return record_and_convert(prepared, output)


def flight_session(
    output: CaptureName,
    plan: FlightPlan,
    settings: Settings,
    progress: Progress,
    announce: Callable[[bool], None],
) -> "FlightResult":
    """Record in memory and write a capture, named after `output`, whenever a trigger fires."""
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        folder = stack.enter_context(Folder.open(output.path.parent, invoking_user()))
        prepared = stack.enter_context(prepare(settings, signals, progress, announce))
        from iorec.record.flight_recording import record_flight  # only now, as above

        return record_flight(prepared, plan, folder, output)


@contextlib.contextmanager
def prepare(
    settings: Settings,
    signals: SignalWaiter,
    progress: Progress,
    announce: Callable[[bool], None],
) -> Iterator[Prepared]:
    """Begins to load the programs, and does all else that takes privileges; drops these then."""
    user = invoking_user()
    with contextlib.ExitStack() as stack:
        workload = None
        if settings.workload:
            workload = Workload(settings.workload, user)
            stack.callback(workload.cancel)
        loading = stack.enter_context(Loading())
        names = read_kernel_names()
        paths = stack.enter_context(FilePaths())
        plan = make_plan(
            settings.layers,
            settings.buffer_bytes,
            names,
            resolve_filters(settings.filters, names, paths.pid),
            settings.filters.syscall,
            wants_trace=settings.is_verbose,
        )
        loading.begin(plan)
        symbols = read_kernel_symbols() if WAIT.name in settings.layers else None
        devices = DeviceWatch(paths.notes)
        drop_privileges(user, *settings.folders)
        yield Prepared(
            settings=settings,
            names=names,
            plan=plan,
            loading=loading,
            paths=paths,
            devices=devices,
            workload=workload,
            signals=signals,
            progress=progress,
            announce=announce,
            symbols=symbols,
        )


def make_plan(
    layers: tuple[str, ...],
    buffer_bytes: int,
    names: KernelNames,
    kernel_filter: KernelFilter,
    calls: tuple[str, ...] = (),
    *,
    wants_trace: bool = False,
) -> Plan:
    """What to load to record some layers of this machine; no `calls`: those by default."""
    slots = max(_FEWEST_SLOTS, _SLOTS_PER_REQUEST * read_request_capacity())
    slots *= max(layer.slots for layer in layers_of(layers))
    return Plan(
        kernel_filter,
        layers,
        buffer_bytes,
        1 << (min(slots, MOST_SLOTS) // SLOTS_PER_BUCKET - 1).bit_length(),
        names.is_preemptible,
        is_io_controller_unified(),
        wants_trace,
        calls or DEFAULT_CALLS,
    )
