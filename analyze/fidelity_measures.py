# SPDX-License-Identifier: GPL-2.0-only
"""Measures how the I/Os of a replay differ from those that were asked for.

In SQL, as both may have any number of rows: only histograms come back.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection
from duckdb import Error as DatabaseError
from numpy.typing import NDArray

from analyze import replay_actions as actions
from analyze.completeness import make_completeness
from analyze.condition import first_line
from analyze.database import MEMORY_LIMIT, open_database
from analyze.errors import IorecError
from analyze.fidelity import LATE_NS, Fidelity, Measured, Percentiles, judge
from analyze.fidelity_pairs import CLOSE_NS, create_asked, create_done, create_matched, rules_of
from analyze.replayed import Replay
from analyze.sources import find_captures, metadata_digest, read_capture_file

_GAP_BIN_NS = 100
_GAP_TOLERANCE_NS, _GAP_TOLERANCE = 10_000, 0.05
_DEPTH_MOMENTS = 4000

Ints = NDArray[np.int64]


def compare(
    original: Path,
    replayed: Path,
    *,
    replay: Replay | None = None,
    memory_limit: str = MEMORY_LIMIT,
) -> Fidelity:
    """The verdict on a capture of a replay, whoever has made it.

    What was narrowed, mapped and fitted is taken from `replay`, or the capture of the replay; if
    nothing says it, both must be of one device, and all I/Os be done as they were.
    """
    try:
        return _compare(original, replayed, replay, memory_limit)
    except DatabaseError as error:
        raise IorecError(
            f"cannot compare {original} and {replayed}: {first_line(error)}",
            "get fresh copies of the files, or free some space for temporary files",
        ) from error


def _compare(original: Path, replayed: Path, replay: Replay | None, memory_limit: str) -> Fidelity:
    with ExitStack() as resources:
        sources, others = find_captures([original]), find_captures([replayed])
        connection = open_database([*sources, *others], resources, memory_limit=memory_limit)
        first = [read_capture_file(connection, path) for path in sources]
        second = [read_capture_file(connection, path) for path in others]
        replay = replay or second[0].metadata.replay
        rules = rules_of(first, second, replay)
        create_asked(connection, first, replay, rules)
        create_done(connection, second, replay, rules)
        create_matched(connection, replay)
        measured = _measure(connection, replay)
        losses = [make_completeness(first), make_completeness(second)]
        names = (str(original), str(replayed))
        return judge(names, measured, replay, losses, metadata_digest(first))


def _measure(connection: DuckDBPyConnection, replay: Replay | None) -> Measured:
    def one(query: str) -> Any:
        return connection.execute(query).fetchall()[0]

    asked, writes, writes_read, replayed = one(
        f"""
        SELECT count(*), count(*) FILTER (kind = {actions.WRITE}),
            count(*) FILTER (op = 'write' AND kind = {actions.READ}),
            (SELECT count(*) FROM done)
        FROM asked WHERE NOT is_added
        """
    )
    matched, errors, early, late, drift, wanted, got, depth_asked, depth_replayed = one(
        f"""
        SELECT count(*), count(*) FILTER (errno <> 0 AND was_errno = 0), -least(min(late_ns), 0),
            count(*) FILTER (abs(late_ns) > {LATE_NS}), regr_slope(late_ns, want_ns) * 1e6,
            max(want_ns) - min(want_ns), max(got_ns) - min(got_ns),
            {_depth_sql("want_ns", "asked_latency_ns")}, {_depth_sql("got_ns", "is_ns")}
        FROM matched
        """
    )
    is_timed = matched > 0 and (replay is None or replay.speed is not None)
    is_closed = replay is not None and replay.waiting_threads > 0
    has_times = is_timed and not is_closed and matched > 1
    return Measured(
        asked=asked,
        writes=writes,
        writes_read=writes_read,
        asked_ns=wanted or 0,
        replayed_ns=got or 0,
        replayed=replayed,
        matched=matched,
        lateness=_percentiles(connection, "late_ns") if is_timed else None,
        early_ns=early if is_timed else None,
        late_share=late / matched if is_timed else None,
        drift_ppm=_finite(drift) if is_timed else None,
        duration_ratio=got / wanted if is_timed and wanted else None,
        order_kept=_order_kept(connection, within_threads=is_closed) if is_timed else None,
        arrival_distance=_arrival_distance(connection) if is_timed else None,
        depth_asked=depth_asked,
        depth_replayed=depth_replayed,
        depth_error=_depth_error(connection) if has_times else None,
        errors=errors,
        latency_asked=_percentiles(connection, "was_ns"),
        latency_replayed=_percentiles(connection, "is_ns"),
    )


def _finite(value: float | None) -> float | None:
    return round(value, 3) if value is not None and np.isfinite(value) else None


def _percentiles(connection: DuckDBPyConnection, column: str) -> Percentiles | None:
    """To a microsecond: of a histogram, so that no column is held in memory."""
    found = connection.execute(
        f"""
        SELECT ceil({column} / 1000)::BIGINT AS us, count(*) AS ios FROM matched
        WHERE {column} IS NOT NULL GROUP BY us ORDER BY us
        """
    ).fetchnumpy()
    if not len(found["us"]):
        return None
    passed = np.cumsum(found["ios"])
    at = [
        float(found["us"][np.searchsorted(passed, share * passed[-1])]) * 1000
        for share in (0.5, 0.99, 0.999, 1.0)
    ]
    return Percentiles(*at)


def _order_kept(connection: DuckDBPyConnection, *, within_threads: bool) -> float | None:
    """The share of neighbours that came in the order asked for.

    Within threads it is that of I/Os which only one thread does: which of several did the nth
    flush, or the nth write to one place, nothing tells.
    """
    partition = "PARTITION BY tid" if within_threads else ""
    which = "WHERE is_of_one_thread" if within_threads else ""
    kept, pairs = connection.execute(
        f"""
        WITH pairs AS (
            SELECT want_ns - lag(want_ns) OVER w AS gap_ns, got_ns - lag(got_ns) OVER w AS step_ns
            FROM matched {which} WINDOW w AS ({partition} ORDER BY want_ns)
        )
        SELECT count(*) FILTER (step_ns >= 0), count(*) FROM pairs WHERE gap_ns > {CLOSE_NS}
        """
    ).fetchall()[0]
    return kept / pairs if pairs else None


def _arrival_distance(connection: DuckDBPyConnection) -> float | None:
    """The greatest distance of the distributions of gaps, as Kolmogorov and Smirnov have it.

    Gaps that differ by less than 10 us or 5 % are alike: those of a timer would be all apart else.
    """
    asked, got = (_gaps(connection, column) for column in ("want_ns", "got_ns"))
    if not len(asked[0]) or not len(got[0]):
        return None
    return max(_exceeds(asked, got), _exceeds(got, asked))


def _gaps(connection: DuckDBPyConnection, column: str) -> tuple[Ints, NDArray[np.float64]]:
    """Gaps and the share of those up to each."""
    found = connection.execute(
        f"""
        WITH gaps AS (SELECT {column} - lag({column}) OVER (ORDER BY {column}) AS gap FROM matched)
        SELECT (gap // {_GAP_BIN_NS} * {_GAP_BIN_NS})::BIGINT AS gap, count(*) AS ios
        FROM gaps WHERE gap IS NOT NULL GROUP BY ALL ORDER BY ALL
        """
    ).fetchnumpy()
    ios = found["ios"].astype(np.float64)
    return found["gap"].astype(np.int64), np.cumsum(ios) / max(ios.sum(), 1)


def _exceeds(
    one: tuple[Ints, NDArray[np.float64]], other: tuple[Ints, NDArray[np.float64]]
) -> float:
    """By how much more of `one` is up to some gap than of `other` is up to a little more."""
    tolerance = np.maximum(_GAP_TOLERANCE_NS, one[0] * _GAP_TOLERANCE)
    at = np.searchsorted(other[0], one[0] + tolerance, "right")
    shares = np.concatenate([[0.0], other[1]])[at]
    return float(np.max(one[1] - shares, initial=0.0))


def _depth_sql(begin: str, lasts: str) -> str:
    """Mean I/Os in flight, from the first begin to the last end (Little's law)."""
    return f"sum({lasts}) / nullif(max({begin} + {lasts}) - min({begin}), 0)"


def _depth_error(connection: DuckDBPyConnection) -> float | None:
    """By how much the I/Os in flight differ, on average, as a share of those asked for."""
    span = connection.execute("SELECT min(want_ns), max(want_ns) FROM matched").fetchall()[0]
    width = (span[1] - span[0]) / _DEPTH_MOMENTS
    if width <= 0:
        return None
    asked = _depth(connection, "want_ns", "asked_latency_ns", span[0], width)
    got = _depth(connection, "want_ns + late_ns", "is_ns", span[0], width)
    mean = float(asked.mean())
    return float(np.abs(asked - got).mean()) / mean if mean else None


def _depth(
    connection: DuckDBPyConnection, begin: str, lasts: str, start: int, width: float
) -> NDArray[np.float64]:
    """I/Os in flight at evenly spaced moments."""
    steps = np.zeros(_DEPTH_MOMENTS + 2)
    for sign, moment in ((1, begin), (-1, f"{begin} + {lasts}")):
        found = connection.execute(
            f"""
            SELECT least(greatest(ceil(({moment} - {start}) / {width!r}), 0),
                {_DEPTH_MOMENTS + 1})::BIGINT AS moment, count(*) AS ios
            FROM matched WHERE {lasts} IS NOT NULL GROUP BY moment
            """
        ).fetchnumpy()
        np.add.at(steps, found["moment"].astype(np.int64), sign * found["ios"])
    return np.cumsum(steps)[:-1]
