# SPDX-License-Identifier: GPL-2.0-only
"""`iorec exporter`: its metrics against what was done, and as Prometheus scrapes them."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser

from analyze.errors import IorecError
from iorec.live.listen import listen_at
from tests.kernel.conftest import IOREC, LoopDevice, run
from tests.kernel.load import running_load

DASHBOARD = Path(__file__).parents[2] / "docs/grafana.json"
PROMETHEUS = shutil.which("prometheus")


class Exporter:
    """The command on a free port, from when it records."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [str(IOREC), "exporter", "--listen", "127.0.0.1:0", *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("recording ")
        serving = re.fullmatch(r"serving (http://(\S+:\d+))/metrics\n",
                               self.process.stderr.readline())  # fmt: skip
        assert serving
        self.url, self.address = serving.groups()

    def scrape(self) -> "Scrape":
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as page:
            return Scrape(page.read().decode())

    def scrape_when(self, is_there: Callable[["Scrape"], bool]) -> "Scrape":
        """What is served when it is there, or after ten seconds."""
        deadline = time.monotonic() + 10
        while not is_there(scraped := self.scrape()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return scraped

    def connect(self) -> socket.socket:
        host, port = self.address.split(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def stop(self, number: int = signal.SIGINT) -> str:
        """Ends it, and returns what it says."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=30)[1]


class Scrape:
    """A page of metrics."""

    def __init__(self, text: str) -> None:
        families = parser.text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextlib.contextmanager
def exporting(*options: str) -> Iterator[Exporter]:
    exporter = Exporter(*options)
    try:
        yield exporter
        said = exporter.stop()
        assert exporter.process.returncode == 0, said
        assert "Traceback" not in said
    finally:
        exporter.process.kill()


def read(loop: LoopDevice, count: int, *, is_fine: bool = True) -> None:
    subprocess.run(["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", f"count={count}",
                    "iflag=direct"], stderr=subprocess.DEVNULL, check=is_fine)  # fmt: skip


def write(loop: LoopDevice, count: int) -> None:
    run("dd", "if=/dev/zero", f"of={loop.path}", "bs=8k", f"count={count}", "oflag=direct",
        stderr=subprocess.DEVNULL)  # fmt: skip


def test_what_was_done_is_counted(loop: LoopDevice) -> None:
    with exporting("-d", loop.name) as exporter:
        begun = time.monotonic()
        write(loop, 211)
        read(loop, 503)
        took = time.monotonic() - begun

        def ios(scraped: Scrape, **labels: str) -> float:
            labels = {"device": loop.name, "layer": "request"} | labels
            return scraped.sum("iorec_io_latency_seconds_count", **labels)

        def missed(scraped: Scrape) -> float:
            """Whose completion no program saw; of the last one that is not known yet."""
            return 1 + scraped.sum("iorec_lost_ios_total", cause="missed_completion")

        found = exporter.scrape_when(lambda scraped: ios(scraped) + missed(scraped) > 714)
        assert 714 - missed(found) <= ios(found) <= 714
        for op, count, size in (("write", 211, 8192), ("read", 503, 4096)):
            labels = {"device": loop.name, "layer": "request", "op": op}
            assert count - missed(found) <= ios(found, op=op) <= count
            assert found.sum("iorec_io_bytes_total", **labels) == size * ios(found, op=op)
            buckets = [sample for sample in found.samples
                       if sample.name == "iorec_io_latency_seconds_bucket"
                       and labels.items() <= sample.labels.items()]  # fmt: skip
            counts = [sample.value for sample in buckets]
            assert counts == sorted(counts)
            assert counts[-1] == ios(found, op=op)
            total_s = found.sum("iorec_io_latency_seconds_sum", **labels)
            assert 0 < found.sum("iorec_io_queue_seconds_sum", **labels) < total_s < took
        lost = found.sum("iorec_lost_ios_total") - (missed(found) - 1)
        assert lost == found.sum("iorec_left_out_ios_total") == 0
        assert found.sum("iorec_io_errors_total") == 0
        assert found.sum("iorec_recorder_cpu_seconds_total") > 0
        assert found.sum("iorec_recorder_peak_memory_bytes") > 10e6
        assert found.sum("iorec_build_info", kernel=os.uname().release) == 1
        assert {sample.labels["op"] for sample in found.samples
                if sample.name == "iorec_io_in_flight"} == {"read", "write"}  # fmt: skip


def test_a_failed_io_is_an_error_and_no_latency(loop: LoopDevice) -> None:
    os.truncate(loop.backing, 0)
    with exporting("-d", loop.name) as exporter:
        read(loop, 3, is_fine=False)
        found = exporter.scrape_when(lambda scraped: scraped.sum("iorec_io_errors_total") > 0)
        assert found.sum("iorec_io_errors_total", device=loop.name, errno="EIO", op="read") > 0
        assert found.sum("iorec_io_latency_seconds_count") == 0


def test_layers_and_cgroups_are_apart(loop: LoopDevice, cgroup: Path) -> None:
    with exporting("-d", loop.name, "-l", "request,bio", "--by-cgroup") as exporter:
        run("sh", "-c", f"echo $$ > {cgroup}/cgroup.procs; exec dd if={loop.path} of=/dev/null"
            " bs=4k count=100 iflag=direct", stderr=subprocess.DEVNULL)  # fmt: skip
        name = "iorec_cgroup_io_latency_seconds_count"
        labels = {"cgroup": f"/{cgroup.name}", "op": "read"}
        found = exporter.scrape_when(lambda scraped: scraped.sum(name, **labels) >= 198)
        missed = 2 + found.sum("iorec_lost_ios_total", cause="missed_completion")
        for layer in ("request", "bio"):
            assert 100 - missed <= found.sum(name, layer=layer, **labels) <= 100
            device = {"layer": layer, "device": loop.name, "op": "read"}
            assert found.sum("iorec_io_latency_seconds_count", **device) <= 100


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_prometheus_scrapes_the_counts_and_the_dashboard_has_what_to_draw(
    loop: LoopDevice, ram_folder: Path
) -> None:
    with exporting("-d", loop.name) as exporter, prometheus(ram_folder, exporter) as query:
        query_until(query, 'up{job="iorec"}', 1)
        read(loop, 307)
        write(loop, 101)
        time.sleep(2)  # the recorder's period and a scrape
        served = exporter.scrape()
        for op, count in (("read", 307), ("write", 101)):
            for name in ("iorec_io_latency_seconds_count", "iorec_io_bytes_total"):
                labels = {"device": loop.name, "op": op, "layer": "request"}
                wanted = served.sum(name, **labels)
                matchers = ",".join(f'{label}="{value}"' for label, value in labels.items())
                query_until(query, f"{name}{{{matchers}}}", wanted)
                assert 0 < wanted <= count * (1 if name.endswith("count") else 8192)
        for expression in dashboard_queries(loop):
            found = query(expression)
            is_of_errors = "errors" in expression
            assert bool(found) != is_of_errors, expression
        (p99,) = query(f'histogram_quantile(0.99, iorec_io_latency_seconds_bucket{{op="read",'
                       f'device="{loop.name}"}})')  # fmt: skip
        assert 1e-6 < float(p99["value"][1]) < 10


Query = Callable[[str], list[dict[str, Any]]]


@contextlib.contextmanager
def prometheus(folder: Path, exporter: Exporter) -> Iterator[Query]:
    """Scrapes the exporter each second; gives what asks it."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs: [{job_name: iorec, static_configs:"
        f" [{{targets: ['{exporter.address}']}}]}}]\n"
    )
    with listen_at("127.0.0.1:0") as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    process = subprocess.Popen(
        [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address={address}", "--log.level=error"])  # fmt: skip

    def query(expression: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{asked}", timeout=30) as page:
            answer = json.load(page)
        assert answer["status"] == "success"
        return list(answer["data"]["result"])

    try:
        yield query
    finally:
        process.terminate()
        process.wait(30)


def query_until(query: Query, expression: str, wanted: float) -> None:
    """Waits until a query has one value, which is the wanted one."""
    deadline = time.monotonic() + 30
    found = None
    while found != [wanted]:
        assert time.monotonic() < deadline, (expression, found, wanted)
        time.sleep(0.2)
        with contextlib.suppress(OSError):  # it still starts
            found = [float(one["value"][1]) for one in query(expression)]


def dashboard_queries(loop: LoopDevice) -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m")
            for variable, value in (
                ("device", loop.name),
                ("layer", "request"),
                ("instance", ".*"),
            ):
                expression = expression.replace(f"${variable}", value)
            yield expression


def test_scrapers_that_hang_keep_neither_others_nor_the_recorder(loop: LoopDevice) -> None:
    with exporting("-d", loop.name) as exporter, running_load(loop, "--rw=randread"):
        scrapers = [exporter.connect() for _ in range(6)]
        for scraper in scrapers[:3]:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and never reads
        for scraper in scrapers[3:]:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nX: ")  # and never ends
        found = exporter.scrape_when(lambda scraped: scraped.sum("iorec_io_bytes_total") > 1 << 20)
        assert found.sum("iorec_io_bytes_total") > 1 << 20
        assert found.sum("iorec_lost_ios_total", cause="ring_full") == 0
        begun = time.monotonic()
        exporter.stop()
        assert time.monotonic() - begun < 15
        for scraper in scrapers:
            scraper.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_it_and_frees_the_port(loop: LoopDevice, number: int) -> None:
    exporter = Exporter("-d", loop.name)
    with pytest.raises(IorecError, match="Address already in use"):
        listen_at(exporter.address)
    said = exporter.stop(number)  # the pipe ends when all processes have ended
    assert exporter.process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert "Traceback" not in said
    listen_at(exporter.address).close()


def test_it_serves_on_ipv6(loop: LoopDevice) -> None:
    with listen_at("[::1]:0") as listener:
        address = f"[::1]:{listener.getsockname()[1]}"
    with exporting("-d", loop.name, "--listen", address) as exporter:
        assert exporter.address == address
        assert exporter.scrape().sum("iorec_build_info") == 1
