# SPDX-License-Identifier: GPL-2.0-only
"""Pairs the I/Os of a replay with those that were asked for, in a database of both captures."""

from collections.abc import Sequence
from typing import Any

from duckdb import DuckDBPyConnection

from analyze import replay_actions as actions
from analyze.database import create_views
from analyze.errors import IorecError
from analyze.opened import OpenedRows
from analyze.replay_rows import Place, Rules, create_replayed
from analyze.replayed import Replay
from analyze.selection import make_selection, recorded_span, select_window
from analyze.sources import CaptureFile

CLOSE_NS = 10_000  # neighbours that are closer have no order
_ANCHORS = 1000  # I/Os, of which the earliest one is the anchor where the start is not known

# What makes two I/Os the same, but for when they are.
_KEY = "target, kind, place, size"
_PAIR = (
    "a.want_ns, a.tid, a.is_of_one_thread, a.latency_ns AS was_ns, a.asked_latency_ns,"
    " a.errno AS was_errno, a.is_added, d.got_ns, d.latency_ns AS is_ns, d.errno"
)


def rules_of(
    first: Sequence[CaptureFile], second: Sequence[CaptureFile], replay: Replay | None
) -> Rules:
    """What became of rows: as the replay says; else of one device all is done as it was."""
    if replay is not None:
        places = tuple(
            Place(
                target.source,
                target.size_bytes,
                target.source_size_bytes,
                target.queue.logical_block_size or 512,
                target.largest_bytes,
                target.is_written,
                target.largest_discard_bytes,
                target.largest_zeroes_bytes,
            )
            for target in replay.targets
        )
        return Rules(places, replay.writes, replay.fit, replay.engine == "libaio")
    source, _ = _only_devices(first, second)
    place = Place(source, None, None, 1, None, is_written=True)
    return Rules((place,), "as-recorded", "refuse", has_aio=False)


def _only_devices(first: Sequence[CaptureFile], second: Sequence[CaptureFile]) -> tuple[str, str]:
    """The one device that each has I/Os of."""
    found = []
    for files in (first, second):
        names = {
            entry.device
            for file in files
            if file.metadata.counts
            for entry in file.metadata.counts.devices
            if entry.recorded and entry.device
        }
        if len(names) != 1:
            raise IorecError(
                f"{files[0].path} has I/Os of {len(names)} devices, and no replay says which"
                " became which",
                "compare captures of one device, or one that iorec replay has made",
            )
        found.append(names.pop())
    return found[0], found[1]


def _open(
    connection: DuckDBPyConnection, files: Sequence[CaptureFile], **narrowed: Any
) -> OpenedRows:
    span = recorded_span(files)
    selection = make_selection(
        span,
        narrowed.get("begin_s"),
        narrowed.get("end_s"),
        narrowed.get("where"),
        narrowed.get("layer"),
    )
    window = select_window(span, selection)
    create_views(connection, files, window, selection)
    return OpenedRows(connection, tuple(files), (), window, selection)


def create_asked(
    connection: DuckDBPyConnection,
    files: Sequence[CaptureFile],
    replay: Replay | None,
    rules: Rules,
) -> None:
    """Creates the table `asked`: what was to be done, `want_ns` after the start.

    Flushes of a device without a cache are no I/Os: the kernel ends them itself. `is_added` are the
    flushes that a replay does before the data of writes: they are paired, and then left out.
    """
    narrowed = {
        name: getattr(replay, name, None) for name in ("begin_s", "end_s", "where", "layer")
    }
    opened = _open(connection, files, **narrowed)
    create_replayed(opened, rules)
    targets = replay.targets if replay else ()
    cacheless = [number for number, target in enumerate(targets) if not target.has_cache]
    first = int(replay.first_at) if replay else "(SELECT min(time_ns) FROM replayed)"
    speed = (replay.speed if replay else 1.0) or 1.0
    preflush = 0 if replay is None else actions.PREFLUSH
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE asked AS
        WITH whole AS (
            SELECT *, false AS is_added FROM replayed
            UNION ALL
            SELECT * REPLACE ({actions.FLUSH} AS action, 0 AS place, 0 AS size, NULL AS latency_ns),
                true FROM replayed WHERE action & {preflush} > 0
        ), named AS (
            SELECT ((time_ns - {first}) / {speed!r})::BIGINT AS want_ns, target,
                action & {actions.KIND_MASK} AS kind, place, size, tid, latency_ns,
                (latency_ns / {speed!r})::BIGINT AS asked_latency_ns, op,
                coalesce(errno, 0) AS errno, is_added
            FROM whole
            WHERE NOT (action = {actions.FLUSH} AND list_contains(?::INT[], target))
        )
        SELECT *, min(tid) OVER same = max(tid) OVER same AS is_of_one_thread FROM named
        WINDOW same AS (PARTITION BY {_KEY})
        """,
        [cacheless],
    )


def create_done(
    connection: DuckDBPyConnection,
    files: Sequence[CaptureFile],
    replay: Replay | None,
    rules: Rules,
) -> None:
    """Creates the table `done`: what the targets did, `got_ns` after the start."""
    _open(connection, files)
    if replay is not None:
        names = [target.target for target in replay.targets]
    else:
        devices = connection.execute("SELECT DISTINCT device FROM io").fetchall()
        names = [name for (name,) in devices]
    start = int(replay.started_at) if replay else "(SELECT min(epoch_ns(time)) FROM io)"
    zeros = (
        f"CASE WHEN contains(flags, 'nounmap') THEN {actions.ZERO_NO_UNMAP} ELSE {actions.ZERO} END"
    )
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE done AS
        SELECT epoch_ns(time) - {start} AS got_ns,
            list_position(?::VARCHAR[], device) - 1 AS target,
            CASE op WHEN 'read' THEN {actions.READ} WHEN 'write' THEN {actions.WRITE}
                WHEN 'flush' THEN {actions.FLUSH} WHEN 'discard' THEN {actions.DISCARD}
                WHEN 'write_zeroes' THEN {zeros} END AS kind,
            coalesce("offset", 0) AS place, bytes AS size, latency_ns, errno
        FROM io WHERE op <> 'cache_flush' AND list_contains(?::VARCHAR[], device)
        """,
        [names, names],
    )


def create_matched(connection: DuckDBPyConnection, replay: Replay | None) -> None:
    """Creates the table `matched`: the nth I/O of a kind, place and size with the nth.

    Where one side has more of them, as when a completion was not seen, that would pair all that
    follow wrongly: there an I/O is paired with the last one that was asked for before it. Of a
    closed loop, in which times are a result, it stays the nth.
    """
    has_times = replay is None or (replay.waiting_threads == 0 and replay.speed is not None)
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE uneven AS
        SELECT {_KEY} FROM (
            SELECT {_KEY}, 1 AS side FROM asked UNION ALL SELECT {_KEY}, -1 FROM done
        ) GROUP BY {_KEY} HAVING sum(side) <> 0 AND {has_times}
        """
    )
    even = f"SELECT * FROM {{side}} ANTI JOIN uneven USING ({_KEY})"
    numbered = f"row_number() OVER (PARTITION BY {_KEY} ORDER BY {{time}}) AS nth"
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE paired AS
        SELECT {_PAIR}
        FROM (SELECT *, {numbered.format(time="want_ns")} FROM ({even.format(side="asked")})) a
        JOIN (SELECT *, {numbered.format(time="got_ns")} FROM ({even.format(side="done")})) d
        USING ({_KEY}, nth)
        """
    )
    anchor_ns = 0 if replay is not None else _earliest(connection)
    _pair_uneven(connection, anchor_ns)
    connection.execute(
        "CREATE OR REPLACE TABLE matched AS"
        f" SELECT *, got_ns - want_ns - {anchor_ns} AS late_ns FROM paired WHERE NOT is_added"
    )


def _pair_uneven(connection: DuckDBPyConnection, anchor_ns: int) -> None:
    """Each with the last one that was asked for before it, and none twice."""
    connection.execute(
        f"""
        INSERT INTO paired
        SELECT {_PAIR} FROM (
            SELECT *, got_ns - {anchor_ns} + {CLOSE_NS} AS until_ns FROM done
            SEMI JOIN uneven USING ({_KEY})
        ) d
        ASOF JOIN (SELECT * FROM asked SEMI JOIN uneven USING ({_KEY})) a
        ON {" AND ".join(f"a.{name} = d.{name}" for name in _KEY.split(", "))}
            AND d.until_ns >= a.want_ns
        QUALIFY row_number() OVER (
            PARTITION BY {", ".join(f"a.{name}" for name in _KEY.split(", "))}, a.want_ns
            ORDER BY d.got_ns
        ) = 1
        """
    )


def _earliest(connection: DuckDBPyConnection) -> int:
    """What is taken for the start of a replay that does not tell it."""
    found = connection.execute(
        "SELECT min(got_ns - want_ns) FROM"
        f" (SELECT * FROM paired ORDER BY want_ns LIMIT {_ANCHORS})"
    ).fetchall()
    return int(found[0][0] or 0)
