# SPDX-License-Identifier: GPL-2.0-only
"""What the exporter serves: as its parsers read it, as docs/metrics.md has it."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import Metric, parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from iorec.live.metrics import find_page, make_registry
from iorec.live.totals import Totals
from iorec.live.web import Page
from tests.builders import described, table

DOCS = Path(__file__).parents[3] / "docs"
HEAD = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n"


def page_of(rows: pa.Table, head: bytes = b"") -> Page:
    totals = Totals(by_cgroup=True)
    (batch,) = rows.combine_chunks().to_batches()
    totals.add(batch, described(rows))
    page = find_page(make_registry(totals), "/metrics", head)
    assert page is not None
    return page


def samples(page: Page) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families: Iterable[Metric] = parser.text_string_to_metric_families(page.text.decode())
    found = [sample for family in families for sample in family.samples]
    made = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(made) == len(found)  # nothing is there twice
    return made


def test_both_formats_say_the_same() -> None:
    rows = table(300, latency_ns=[1 << number % 40 for number in range(300)])
    plain, other = page_of(rows), page_of(rows, HEAD)
    assert plain.kind.startswith("text/plain; version=")
    assert other.kind.startswith("application/openmetrics-text; version=1.")
    families = openmetrics_parser.text_string_to_metric_families(other.text.decode())
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("iorec_")
    }
    recorded = {key: value for key, value in samples(plain).items() if key[0].startswith("iorec_")}
    assert found == recorded
    labels = frozenset({("layer", "request"), ("device", "loop0"), ("op", "read")})
    assert found["iorec_io_latency_seconds_count", labels] == 300
    total_ns = sum(1 << number % 40 for number in range(300))
    assert found["iorec_io_latency_seconds_sum", labels] == total_ns / 1e9
    assert found["iorec_io_bytes_total", labels] == 300 * 4096
    assert found["iorec_io_latency_seconds_bucket", labels | {("le", "1e-06")}] == 80
    assert found["iorec_io_latency_seconds_bucket", labels | {("le", "+Inf")}] == 300


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "a\r\n# TYPE x counter", "ä{}=,", "\u2028"]
)
def test_a_name_of_a_stranger_is_only_a_name(name: str) -> None:
    labels = {("layer", "request"), ("cgroup", f"/{name}"), ("op", "read")}
    page = page_of(table(2, cgroup=f"/{name}"))
    assert page.text.count(b"\n# TYPE x counter") == 0
    found = samples(page)
    assert found["iorec_cgroup_io_bytes_total", frozenset(labels)] == 8192


def test_there_are_two_pages() -> None:
    registry = make_registry(Totals(by_cgroup=False))
    index = find_page(registry, "/", b"")
    assert index is not None
    assert b'href="metrics"' in index.text
    assert find_page(registry, "/metrics", b"") is not None  # before anything was recorded
    assert find_page(registry, "/other", b"") is None


def everything() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of every metric of the recording, by name."""
    rows = table(2, device="sda", errno=[0, 5])
    page = page_of(rows)
    made = {}
    for family in parser.text_string_to_metric_families(page.text.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = set().union(*(sample.labels for sample in family.samples)) - {"le"}
        made[name] = family.type, labels
    return {name: made[name] for name in made if name.startswith("iorec_")}


def test_the_table_of_the_documentation_is_what_is_served() -> None:
    lines = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", (DOCS / "metrics.md").read_text(),
                       re.MULTILINE)  # fmt: skip
    listed = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in lines}
    served = everything()
    assert served["iorec_io_in_flight"] == ("gauge", set())  # there is no sda here
    served["iorec_io_in_flight"] = "gauge", {"device", "op"}
    assert listed == served


def test_the_dashboard_asks_for_metrics_and_labels_that_exist() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [target["expr"] for target in targets]
    queries += [one["definition"] for one in dashboard["templating"]["list"] if "definition" in one]
    names = set(re.findall(r"iorec_\w+", " ".join(queries)))
    assert len(names) > 5
    parts = r"(_bucket|_count|_sum)$"
    known = everything() | {"iorec_io_in_flight": ("gauge", {"device", "op"})}
    assert {re.sub(parts, "", name) for name in names} <= known.keys()
    for query in queries:
        for name, matchers in re.findall(r"(iorec_\w+)\{(.*?)\}", query):
            asked = set(re.findall(r"(\w+)(?:=|!=|=~)\"", matchers))
            assert asked <= known[re.sub(parts, "", name)][1] | {"instance", "le"}, query
