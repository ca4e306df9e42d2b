# SPDX-License-Identifier: GPL-2.0-only
"""Bytes on disk for each I/O: a capture and the perf.data of the same run."""

from typing import Any

import analyze
from tests.bench.load import RANDOM, loop_device, run_fio
from tests.bench.stats import PAIRS, ratio, spread
from tests.bench.tracers import TRACERS, running

_DEEP = ("--ioengine=io_uring", "--iodepth=32")
LOADS = {
    "random": (*RANDOM, *_DEEP),
    "sequential": ("--rw=read", "--bs=64k", *_DEEP),
    "mixed": ("--rw=randrw", "--bssplit=4k/60:16k/30:128k/10", "--numjobs=2", *_DEEP),
}


def measure() -> dict[str, Any]:
    """By load; `recorder_mib` is the most memory that the recorder took."""
    sizes: dict[str, dict[str, list[float]]] = {load: {"iorec": [], "perf": []} for load in LOADS}
    recorder_mib = []
    with loop_device() as (device, folder):
        for _ in range(PAIRS):
            for load, options in LOADS.items():
                with running(TRACERS["iorec"], folder), running(TRACERS["perf"], folder):
                    run_fio(device, options)
                for name, found in sizes[load].items():
                    file = folder / TRACERS[name].file
                    found.append(file.stat().st_size / TRACERS[name].count(file))
                with analyze.open(folder / TRACERS["iorec"].file) as capture:
                    recorder = capture.files[0].metadata.recorder
                    assert recorder is not None
                    recorder_mib.append(recorder.peak_memory_bytes / (1 << 20))
    sizes_by_load = {
        load: {
            "iorec_bytes": spread(found["iorec"]),
            "perf_bytes": spread(found["perf"]),
            "ratio": ratio(found["iorec"], found["perf"]),
        }
        for load, found in sizes.items()
    }
    return {"recorder_mib": spread(recorder_mib), **sizes_by_load}
