# SPDX-License-Identifier: GPL-2.0-only
"""How fast records leave the kernel's ring: in bulk and through BCC's callback, in turn."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.typed_json import SignedInt
from iorec.host.cgroups import CgroupNames
from iorec.host.inode_paths import FilePaths
from iorec.host.processes import Processes
from iorec.host.signals import SignalWaiter
from iorec.kernel.loader import Loading
from iorec.kernel.names import read_kernel_names
from iorec.kernel.plan import KernelFilter, Plan
from iorec.kernel.probes import open_probes
from iorec.kernel.ring import Ring
from iorec.record.device_watch import DeviceWatch
from iorec.record.files import Files
from iorec.record.identities import Identities, Waits
from iorec.record.namer import Namer
from iorec.store.origin import Origin
from iorec.store.spool import Spool
from tests.bench.generate import sample_metadata
from tests.bench.load import SATURATED, loop_device, run_fio
from tests.bench.producer import RING_BYTES, producing
from tests.bench.stats import PAIRS, ratio, spread

_SECONDS = 0.5
_PAUSE_S = 0.005
_LARGEST_BATCH = 1 << 16


def measure() -> dict[str, Any]:
    """ns of CPU for each record, and what a core would do at that pace."""
    bulk, callback = [], []
    with producing() as module:
        table = module[b"records"]
        seen = 0

        def on_record(_: int, data: Any, __: int) -> int:
            nonlocal seen
            seen += int(table.event(data).start_ns > 0)
            return -(seen == _LARGEST_BATCH)  # or the producer would never let it end

        def consume() -> int:
            nonlocal seen
            seen = 0
            module.ring_buffer_consume()
            return seen

        table.open_ring_buffer(on_record)
        with Ring(table.map_fd, RING_BYTES) as ring:
            for _ in range(PAIRS):
                bulk.append(_record_ns(lambda: len(ring.drain()[0])))
                callback.append(_record_ns(consume))
    spooling = _spool_ns()
    drain_to_spool = [a + b for a, b in zip(bulk, spooling, strict=True)]
    return {
        "bulk_ns": spread(bulk),
        "callback_ns": spread(callback),
        "ratio": ratio(bulk, callback),
        "bulk_per_s": spread([1e9 / ns for ns in bulk]),
        "callback_per_s": spread([1e9 / ns for ns in callback]),
        "drain_to_spool_ns": spread(drain_to_spool),
        "drain_to_spool_per_s": spread([1e9 / ns for ns in drain_to_spool]),
    }


def _record_ns(consume: Callable[[], int]) -> float:
    records = 0
    end, cpu = time.monotonic() + _SECONDS, time.process_time()
    while time.monotonic() < end:
        records += consume()
        time.sleep(_PAUSE_S)
    return (time.process_time() - cpu) / records * 1e9


def _spool_ns() -> list[float]:
    """ns of CPU to put each real record into the spool."""
    names = read_kernel_names()
    plan = Plan(
        KernelFilter(),
        ("request",),
        ring_bytes=64 << 20,
        bucket_count=1 << 13,
        is_preemptible=names.is_preemptible,
    )
    with (
        FilePaths() as paths,
        Loading() as loading,
        SignalWaiter() as signals,
    ):
        loading.begin(plan)
        with open_probes(plan, loading.finish(signals.wait_for)) as probes:
            with loop_device() as (device, _):
                probes.control["is_recording"] = True
                run_fio(device, SATURATED, seconds=1)
                probes.control["is_recording"] = False
            records, announcements = probes.ring.drain()
            files = Files(paths)
            processes = Processes(paths.notes, has_cmdlines=True)
            identities = Identities(files, CgroupNames(paths.notes), processes, Waits(None, 1))
            identities.read(announcements)
            namer = Namer(DeviceWatch(paths.notes), identities, files, processes, probes.cpu_count)
            origin = Origin(names, probes.cpu_count, SignedInt(0))
            return [_write(records, namer, origin) for _ in range(PAIRS)]


def _write(records: NDArray[np.void], namer: Namer, origin: Origin) -> float:
    metadata = sample_metadata()
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        spool = Spool(file, origin)
        cpu = time.process_time()
        for start in range(0, len(records), _LARGEST_BATCH):
            for batch, _ in namer.name(records[start : start + _LARGEST_BATCH]):
                spool.write(batch, metadata)
        spool.close()
        return (time.process_time() - cpu) / len(records) * 1e9
