# SPDX-License-Identifier: GPL-2.0-only
"""What a tracer costs: the same loads without and with it, in turn."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import analyze
from tests.bench.load import RANDOM, SATURATED, Run, loop_device, process_s, run_fio
from tests.bench.stats import PAIRS, ratio, spread
from tests.bench.tracers import IOREC, Tracer, running

# Bursts, each followed by a pause, make a rate below what the device can do.
_BURSTS = (*SATURATED, "--thinktime=10ms")
LOADS = {
    "bursts of 20": (*_BURSTS, "--thinktime_blocks=20"),
    "bursts of 100": (*_BURSTS, "--thinktime_blocks=100"),
    "one at a time": (*RANDOM, "--ioengine=psync"),
    "saturated": SATURATED,
}


@dataclass(frozen=True)
class _Pair:
    without: Run
    traced: Run
    tracer_s: float

    @property
    def kernel_ns(self) -> float:
        """What an I/O costs more outside of the tracer's process."""
        return _per_io_ns(self.traced) - _per_io_ns(self.without)

    @property
    def process_ns(self) -> float:
        return self.tracer_s / self.traced.ios * 1e9

    @property
    def traced_ns(self) -> float:
        return _per_io_ns(self.traced) + self.process_ns


def measure(tracer: Tracer) -> dict[str, Any]:
    """By load: IOPS and ns of CPU for each I/O; what was lost of all, and why, if it is known."""
    pairs: dict[str, list[_Pair]] = {load: [] for load in LOADS}
    lost: list[float] = []
    causes: Counter[str] = Counter()
    with loop_device() as (device, folder):
        for _ in range(PAIRS):
            without = {load: run_fio(device, options) for load, options in LOADS.items()}
            with running(tracer, folder) as process:
                for load, options in LOADS.items():
                    before = process_s(process.pid)
                    traced = run_fio(device, options)
                    tracer_s = process_s(process.pid) - before
                    pairs[load].append(_Pair(without[load], traced, tracer_s))
            done = sum(of_load[-1].traced.ios for of_load in pairs.values())
            lost.append(1 - tracer.count(folder / tracer.file) / done)
            if tracer.command[0] == IOREC:
                with analyze.open(folder / tracer.file) as capture:
                    causes.update(capture.completeness().lost_by_cause)
    return {
        "lost_part": spread(lost),
        "lost_by_cause": dict(causes),
        "loads": {load: _summary(of_load) for load, of_load in pairs.items()},
    }


def _summary(pairs: list[_Pair]) -> dict[str, Any]:
    without, traced = [p.without for p in pairs], [p.traced for p in pairs]
    cpu_without = [_per_io_ns(run) for run in without]
    cpu_traced = [pair.traced_ns for pair in pairs]
    return {
        "iops_without": spread([run.iops for run in without]),
        "iops_with": spread([run.iops for run in traced]),
        "iops_ratio": ratio([run.iops for run in traced], [run.iops for run in without]),
        "cpu_ns_without": spread(cpu_without),
        "cpu_ns_with": spread(cpu_traced),
        "cpu_ratio": ratio(cpu_traced, cpu_without),
        "kernel_ns": spread([pair.kernel_ns for pair in pairs]),
        "process_ns": spread([pair.process_ns for pair in pairs]),
    }


def _per_io_ns(run: Run) -> float:
    return run.cpu_s / run.ios * 1e9
