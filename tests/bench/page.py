# SPDX-License-Identifier: GPL-2.0-only
"""Puts the figures of one run into the documents: `python -m tests.bench.page FOLDER`.

Each part is between `<!-- name -->` and `<!-- /name -->`, in docs/performance.md or README.md.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.bench.chart import draw_overhead
from tests.bench.overhead import LOADS

_ROOT = Path(__file__).parent.parent.parent
_DOCUMENTS = (_ROOT / "docs/performance.md", _ROOT / "README.md")
NAMES = {
    "iorec": "iorec",
    "iorec-bio": "iorec, `--layer bio`",
    "iorec-both": "iorec, `--layer request,bio`",
    "perf": "`perf record`",
    "bpftrace": "bpftrace",
    "bcc": "BCC, as biosnoop",
}
# What the README compares: the tool, what it keeps of an I/O, what it says of lost ones.
_COMPARED = {
    "iorec": (
        "iorec",
        "a row: latency, owner, file",
        "how many, where, when and why, in the capture",
    ),
    "iorec-both": ("iorec, `-l request,bio`", "two rows", "the same"),
    "perf": ("perf record", "three events", "how many, in perf.data"),
    "bcc": ("BCC, as biosnoop", "a line of text", "how many, on the terminal"),
    "bpftrace": ("bpftrace, as biosnoop", "a line of text", "how many, on the terminal"),
    "blktrace": ("blktrace", "some five events", "how many, on the terminal"),
}
_MILLIONS = ("1", "10", "100")
_MOST_PROCESS_NS = {
    "saturated": 120,
    "one at a time": 120,
    "bursts of 20": 400,
    "bursts of 100": 400,
}

Results = dict[str, Any]


def main() -> None:
    """Writes every table, and the plot."""
    parts = {
        path.stem: json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("*.json"))
    }
    results = {name: part["results"] for name, part in parts.items()}
    tables = {name: "\n".join(table(results)) for name, table in _TABLES.items()}
    minutes = sum(part["took_s"] for part in parts.values()) / 60
    machines = {part["machine"] for part in parts.values()}
    tables["machine"] = f"{'; '.join(sorted(machines))}. All parts took {minutes:.0f} minutes."
    for document in _DOCUMENTS:
        text = document.read_text()
        for name, table in tables.items():
            text = _filled(text, name, table)
        document.write_text(text)
    draw_overhead(results, _ROOT / "docs/overhead.png")


def _filled(text: str, name: str, table: str) -> str:
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    return f"{before}{begin}\n{table}\n\n{end}{after}" if begin else text


def _table(header: str, rows: Iterable[Iterable[str]], *, texts: int = 1) -> list[str]:
    """A table whose first columns are texts and whose others are numbers."""
    numbers = header.count("|") + 1 - texts
    lines = [f"| {header} |", "|---" * texts + "|---:" * numbers + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _value(spread: Results, digits: str = ",.0f", scale: float = 1) -> str:
    return format(spread["median"] * scale, digits)


def _spread(spread: Results, digits: str = ".2f") -> str:
    low, high = format(spread["low"], digits), format(spread["high"], digits)
    return f"{_value(spread, digits)} ({low} to {high})"


def _lost_share(part: Results) -> str:
    """Other programs' I/Os, which perf counts too, may be more than what was lost."""
    return "none seen" if part["lost_part"]["median"] < 0 else _value(part["lost_part"], ".2%")


def _overhead(results: Results) -> list[str]:
    rows = []
    for load in LOADS:
        for name, shown in NAMES.items():
            part = results[f"overhead-{name}"]
            if "not_available" in part:
                rows.append([load, shown, f"not available: {part['not_available']}"])
                continue
            of_load = part["loads"][load]
            rows.append(
                [
                    *(load, shown, _value(of_load["iops_without"]), _value(of_load["iops_with"])),
                    _spread(of_load["iops_ratio"]),
                    _spread(of_load["cpu_ratio"]),
                    *(_value(of_load["kernel_ns"]), _value(of_load["process_ns"])),
                ]
            )
    return _table(
        "load | tracer | IOPS without | with | ratio | CPU for an I/O, ratio "
        "| ns more in fio and the kernel | ns in the tracer's process",
        rows,
    )


def _facts(results: Results) -> list[str]:
    """What the README says first."""
    report, plot = (results["analysis-100"][name] for name in ("report", "plot"))
    sizes = [load["iorec_bytes"] for load in results["size"].values() if "perf_bytes" in load]
    small, large = (pick(sizes, key=lambda size: size["median"]) for pick in (min, max))

    def left(name: str) -> str:
        return _value(results[f"overhead-{name}"]["loads"]["saturated"]["iops_ratio"], ".0%")

    iops = round(results["overhead-iorec"]["loads"]["saturated"]["iops_without"]["median"], -4)
    return [
        f"- **Fast:** on two busy CPUs, {left('iorec')} of {iops:,.0f} IOPS remain while "
        f"iorec records; {left('perf')} with `perf record`, {left('bcc')} with BCC as biosnoop.",
        f"- **Lossless:** at that rate {_lost_for_want_of_room(results)} I/Os were lost for want "
        "of room. Whatever is lost is counted, by device, time and cause.",
        f"- **Small:** {_value(small)} to {_value(large)} bytes of disk for an I/O; perf.data "
        f"takes {_value(results['size']['random']['perf_bytes'])}.",
        f"- **Scalable:** a report of 100 million I/Os takes {_value(report['seconds'])} s and "
        f"{_value(report['peak_mib'])} MiB of memory, a plot {_value(plot['seconds'])} s and "
        f"{_value(plot['peak_mib'])} MiB.",
        f"- **Quiet:** an idle hour costs {_value(results['idle']['iorec_s_per_hour'])} seconds of "
        "CPU.",
    ]


def _lost_for_want_of_room(results: Results) -> int:
    """I/Os of all loads, without those that no program saw the end of."""
    lost: Counter[str] = Counter()
    for name, part in results.items():
        if name.startswith("overhead-iorec"):
            lost.update(part["lost_by_cause"])
    return lost.total() - lost["missed_completion"]


def _compared(results: Results) -> list[str]:
    rows = []
    for name, (tool, keeps, losses) in _COMPARED.items():
        loads = results.get(f"overhead-{name}", {}).get("loads")
        ratios = ("iops_ratio", "cpu_ratio")
        figures = [
            _value(loads["saturated"][r], ".2f") if loads else "not measured" for r in ratios
        ]
        rows.append([tool, keeps, losses, *figures])
    return _table(
        "tool | keeps of an I/O | says of lost I/Os | IOPS, with / without "
        "| CPU for an I/O, with / without",
        rows,
        texts=3,
    )


def _lost(results: Results) -> list[str]:
    parts = ((shown, results[f"overhead-{name}"]) for name, shown in NAMES.items())
    return _table(
        "tracer | lost",
        ([shown, _lost_share(part)] for shown, part in parts if "loads" in part),
    )


def _kernel_time(results: Results) -> list[str]:
    part = results["kernel-time"]
    rows = [
        [NAMES[name], program, _spread(spread, ".0f")]
        for name, programs in part["programs_ns"].items()
        for program, spread in [("all", part[f"{name}_ns"]), *programs.items()]
        if spread["high"] >= 0.5  # the others show as 0
    ]
    return _table("tracer | program | ns for an I/O", rows)


def _drain(results: Results) -> list[str]:
    part = results["drain"]
    return _table(
        "way | ns of CPU for a record | records/s on a core",
        [
            [shown, _spread(part[f"{name}_ns"], ".0f"), _value(part[f"{name}_per_s"])]
            for name, shown in (
                ("bulk", "iorec: out of the ring"),
                ("drain_to_spool", "iorec: out of the ring, with names into the spool"),
                ("callback", "BCC: out of the ring, one Python call for each"),
            )
        ],
    )


def _size(results: Results) -> list[str]:
    loads = {k: v for k, v in results["size"].items() if "perf_bytes" in v}
    return _table(
        "I/O | iorec | perf.data",
        (
            [load, _spread(found["iorec_bytes"], ".1f"), _value(found["perf_bytes"])]
            for load, found in loads.items()
        ),
    )


def _analysis(results: Results) -> list[str]:
    parts = [results[f"analysis-{millions}"] for millions in _MILLIONS]
    commands = [name for name in parts[0] if name != "ios"]
    return _table(
        "command | " + " | ".join(f"{millions} M I/Os" for millions in _MILLIONS),
        (
            [
                f"`iorec {name}`",
                *(
                    f"{_value(part[name]['seconds'], '.1f')} s, "
                    f"{_value(part[name]['peak_mib'])} MiB"
                    for part in parts
                ),
            ]
            for name in commands
        ),
    )


def _start(results: Results) -> list[str]:
    shown = {
        "python s": "`python -c pass`",
        "iorec --help s": "`iorec --help`",
        "iorec report s": "`iorec report` of a sample",
        "iorec, first s": "`iorec record` until it records, the first time",
        "iorec s": "`iorec record` until it records, later",
        "iorec-both s": "`iorec record --layer request,bio`, later",
        "bcc s": "BCC, as biosnoop, until it traces",
        "bpftrace s": "bpftrace until it traces",
    }
    return _table(
        "command | seconds",
        ([text, _spread(results["start"][name])] for name, text in shown.items()),
    )


def _idle(results: Results) -> list[str]:
    names = ("iorec", "bcc", "bpftrace")
    return _table(
        "tracer | CPU seconds in an hour",
        ([NAMES[name], _spread(results["idle"][f"{name}_s_per_hour"], ".0f")] for name in names),
    )


def _live(results: Results) -> list[str]:
    rows = []
    for way, part in results["live"].items():
        loads = [load for name, load in part.items() if name != "idle_s_per_hour"]
        figures = [
            figure
            for load in loads
            for figure in (
                _value(load["recorder_ns"]),
                _value(load["viewer_ns"]),
                _spread(load["iops_ratio"]),
            )
        ]
        rows.append([f"`iorec {way}`", *figures, _spread(part["idle_s_per_hour"], ".0f")])
    return _table(
        "command | 10,000 a second: ns in the recorder | in the viewer | IOPS, ratio to record "
        "| saturated: ns in the recorder | in the viewer | IOPS, ratio to record "
        "| CPU seconds in an idle hour",
        rows,
    )


def _calls(results: Results) -> list[str]:
    found = results["calls"]
    ways = {"nobody traces: the call itself": found["untraced"], **found["added"]}
    rows = [
        [way, *(_spread(value, ",.0f") for value in measured.values())]
        for way, measured in ways.items()
    ]
    uring_ns = _spread(found["uring_ns"], ",.0f")
    return [
        *_table(
            "tracer | getppid(), ns longer | pread() of 4 KiB, cached, ns longer"
            " | write() to a pipe, read() of another that waits: ns longer",
            rows,
        ),
        "",
        f"An operation of io_uring takes {uring_ns} ns of CPU longer while iorec records it.",
    ]


def _limits(results: Results) -> list[str]:
    """The limits of the design: what, the limit as text, and a figure that must not exceed one."""
    drain, start = results["drain"], results["start"]
    hundred, size = results["analysis-100"], results["size"]
    rows: list[tuple[str, str, str, bool]] = []

    def median(spread: Results) -> float:
        return float(spread["median"])

    def limit(what: str, value: float, most: float, unit: str, digits: str = ",.0f") -> None:
        figure = f"{value:{digits}} {unit}".strip()
        rows.append((what, f"≤ {most:{digits}} {unit}".strip(), figure, value <= most))

    def floor(what: str, value: float, least: float, unit: str) -> None:
        rows.append((what, f"≥ {least:.0f} {unit}", f"{value:.1f} {unit}", value >= least))

    limit("I/Os lost at the highest rate, default buffer", _lost_for_want_of_room(results), 0, "")
    limit(
        "in the kernel, against hash maps", median(results["kernel-time"]["ratio"]), 0.5, "", ".2f"
    )
    floor("drain on one core", median(drain["bulk_per_s"]) / 1e6, 10, "M/s")
    floor("drain to spool on one core", median(drain["drain_to_spool_per_s"]) / 1e6, 2, "M/s")
    limit("CPU for it", median(drain["drain_to_spool_ns"]), 500, "ns")
    limit("bytes for an I/O, random 4 KiB", median(size["random"]["iorec_bytes"]), 10, "", ".1f")
    for name, most_s in (("report", 15), ("plot", 12), ("recover", 40)):
        limit(f"`{name}` of 100 M I/Os", median(hundred[name]["seconds"]), most_s, "s", ".1f")
        most_mib = 300 if name == "recover" else 1024
        limit("memory for it", median(hundred[name]["peak_mib"]), most_mib, "MiB")
    limit("memory of the recorder", median(size["recorder_mib"]), 300, "MiB")
    loads = results["overhead-iorec"]["loads"]
    for load, most_ns in _MOST_PROCESS_NS.items():
        limit(f"recorder's process, {load}", median(loads[load]["process_ns"]), most_ns, "ns")
    limit("`iorec --help`", median(start["iorec --help s"]), 0.3, "s", ".2f")
    limit("`iorec report` of a sample", median(start["iorec report s"]), 0.35, "s", ".2f")
    limit("first start of `iorec record`", median(start["iorec, first s"]), 1, "s", ".2f")
    limit("later ones", median(start["iorec s"]), 0.35, "s", ".2f")
    limit("later ones, both layers", median(start["iorec-both s"]), 0.5, "s", ".2f")
    return _table(
        "what | limit | measured | reached",
        ([what, most, figure, "yes" if ok else "**no**"] for what, most, figure, ok in rows),
    )


_TABLES: dict[str, Callable[[Results], list[str]]] = {
    "limits": _limits,
    "overhead": _overhead,
    "lost": _lost,
    "facts": _facts,
    "compared": _compared,
    "kernel-time": _kernel_time,
    "drain": _drain,
    "size": _size,
    "analysis": _analysis,
    "start": _start,
    "idle": _idle,
    "live": _live,
    "calls": _calls,
}


if __name__ == "__main__":
    main()
