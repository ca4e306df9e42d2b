# SPDX-License-Identifier: GPL-2.0-only
"""The viewer of `iorec exporter`: serves what was recorded as metrics for Prometheus."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics

from analyze.metadata import Recorder
from analyze.typed_json import parse_object
from iorec import __version__
from iorec.host.devices import read_in_flight_of
from iorec.live.form import Serving
from iorec.live.totals import EDGES_NS, Group, Histogram, Totals
from iorec.live.viewer import follow
from iorec.live.web import Page, start_serving

_EDGES = [*(repr(edge / 1e9) for edge in EDGES_NS.tolist()), "+Inf"]
_OPENMETRICS = b"application/openmetrics-text"
_INDEX = b'<!doctype html><title>iorec</title><p>iorec serves <a href="metrics">metrics</a>.</p>\n'


def main(fd: int, serving: Serving) -> None:
    """Serves until the recording ends."""
    asyncio.run(_serve(fd, serving))


async def _serve(fd: int, serving: Serving) -> None:
    totals = Totals(by_cgroup=serving.by_cgroup)
    registry = make_registry(totals)
    with socket.socket(fileno=serving.listen_fd) as listener:
        server = await start_serving(listener, partial(find_page, registry))
        batches = follow(fd)
        # The totals change and are read in this thread alone: a page is of one moment.
        while (received := await asyncio.to_thread(next, batches, None)) is not None:
            totals.add(*received)
        server.close()


def make_registry(totals: Totals) -> CollectorRegistry:
    """What is served of some totals, which may grow, and what serving takes."""
    registry = CollectorRegistry()
    registry.register(_Collector(totals))
    ProcessCollector(registry=registry)
    return registry


def find_page(registry: CollectorRegistry, path: str, head: bytes) -> Page | None:
    """The metrics, in the form that the head of the request asks for, or a way to them."""
    if path == "/":
        return Page("text/html", _INDEX)
    if path != "/metrics":
        return None
    if _OPENMETRICS in head.lower():
        return Page(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest(registry))
    return Page(exposition.CONTENT_TYPE_LATEST, exposition.generate_latest(registry))


class _Collector:
    """Makes metrics of totals when they are asked for."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """All but those of the process."""
        totals = self._totals
        for group in totals.groups:
            yield from _of_group(group)
        yield _in_flight(totals.devices.names.values[1:])
        lost = CounterMetricFamily(
            "iorec_lost_ios", "I/Os that are in no other metric", labels=["layer", "cause"]
        )
        for labels, count in totals.lost.items():
            lost.add_metric(labels, count)
        yield lost
        left_out = CounterMetricFamily(
            "iorec_left_out_ios",
            "I/Os that are in no other metric as the exporter was too slow",
            labels=["layer"],
        )
        for layer, count in totals.left_out.items():
            left_out.add_metric([layer], count)
        yield left_out
        if totals.recorder is not None:
            yield from _of_recorder(totals.recorder)
        versions = {"version": __version__, "kernel": os.uname().release}
        yield InfoMetricFamily("iorec_build", "The iorec and the kernel that record", versions)


def _of_group(group: Group) -> Iterator[Metric]:
    kind = "iorec_io" if group.column == "device" else f"iorec_{group.column}_io"
    labels = ["layer", group.column, "op"]
    yield _histogram(
        f"{kind}_latency_seconds", "From submission to completion", labels, group.latency
    )
    yield _histogram(
        f"{kind}_queue_seconds", "From submission until the device got it", labels, group.queue
    )
    size = CounterMetricFamily(f"{kind}_bytes", "Bytes of the I/Os that succeeded", labels=labels)
    for values, place in group.bytes.occupied():
        size.add_metric(values, group.bytes.sums[place])
    yield size
    errors = CounterMetricFamily(
        f"{kind}_errors", "I/Os that failed, by their error", labels=[*labels, "errno"]
    )
    for values, place in group.errors.occupied():
        errors.add_metric(values, group.errors.ios[place])
    yield errors


def _histogram(name: str, text: str, labels: list[str], histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, place in histogram.occupied():
        counts = histogram.buckets[place].cumsum().tolist()
        buckets = list(zip(_EDGES, counts, strict=True))
        family.add_metric(values, buckets, histogram.sums[place] / 1e9)
    return family


def _in_flight(devices: Iterable[str]) -> Metric:
    family = GaugeMetricFamily(
        "iorec_io_in_flight",
        "I/Os in flight now by the kernel's own count, on devices that had I/Os",
        labels=["device", "op"],
    )
    for device in devices:
        for op, count in zip(("read", "write"), read_in_flight_of(device), strict=False):
            family.add_metric([device, op], count)
    return family


def _of_recorder(recorder: Recorder) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "iorec_recorder_cpu_seconds", "CPU time of the recorder", labels=["mode"]
    )
    cpu.add_metric(["user"], recorder.cpu_user_s)
    cpu.add_metric(["system"], recorder.cpu_system_s)
    yield cpu
    yield GaugeMetricFamily(
        "iorec_recorder_peak_memory_bytes",
        "The most memory that the recorder has had",
        recorder.peak_memory_bytes,
    )
    yield GaugeMetricFamily(
        "iorec_recorder_kernel_memory_bytes",
        "Memory of the programs' buffer and tables in the kernel",
        recorder.kernel_memory_bytes,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), parse_object(Serving, json.loads(sys.argv[2])))
