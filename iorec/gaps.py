"""Collects the spans of time in which records found no room in the ring."""

from collections.abc import Iterable

from iorec.probes import Probes

Span = tuple[int, int, int]  # first and last ns of monotonic time, I/Os lost

_MOST_SPANS = 1000
_SHORTEST_PAUSE_NS = 10_000_000  # of bpf/request.c: nearer losses are one gap there too


class Gaps:
    """The gaps since it was made, as many as a capture can hold: near ones become one."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._read: list[int] = probes.completions["gaps"].tolist()
        self._ended: list[Span] = []

    def read(self) -> list[Span]:
        """All spans in time order. To be called each second: the kernel keeps the newest ones."""
        newest_spans: list[Span] = []
        for lane, newest in enumerate(self._probes.completions["gaps"].tolist()):
            rows = self._probes.gaps[lane]
            first = max(self._read[lane], newest - len(rows)) + 1
            for number in range(first, newest + 1):
                row = rows[number % len(rows)]
                span = int(row["first_ns"]), int(row["last_ns"]), int(row["lost"])
                (self._ended if number < newest else newest_spans).append(span)
            # The newest one may still grow.
            self._read[lane] = max(self._read[lane], newest - 1)
        self._ended = _merge(self._ended)
        return _merge([*self._ended, *newest_spans])


def _merge(spans: Iterable[Span]) -> list[Span]:
    pause_ns = _SHORTEST_PAUSE_NS
    while True:
        merged: list[Span] = []
        for first, last, lost in sorted(spans):
            if merged and first - merged[-1][1] < pause_ns:
                before = merged.pop()
                merged.append((before[0], max(before[1], last), before[2] + lost))
            else:
                merged.append((first, last, lost))
        if len(merged) <= _MOST_SPANS:
            return merged
        pause_ns *= 2
