# SPDX-License-Identifier: GPL-2.0-only
"""Makes one row of a system call that a signal interrupted and the kernel began again."""

from duckdb import DuckDBPyConnection

_IS_RESTARTED = "layer = 'syscall' AND contains(flags, 'restarted')"
_PLACE = ("capture", "tid", "time")
# What a call that is begun again has in common with the one before, its next row of the thread.
_SAME = ("op", "fd", "bytes", '"offset"')
_EINTR = 4


def merge_restarted(connection: DuckDBPyConnection, rows: str) -> str:
    """A query for the same rows, in which a call is one from its first begin to its last end.

    One that was interrupted and not begun again failed with EINTR.
    """
    places = ", ".join(_PLACE)
    connection.execute(
        f"CREATE OR REPLACE TABLE restarted AS SELECT DISTINCT capture, tid FROM ({rows})"
        f" WHERE {_IS_RESTARTED}"
    )
    if not connection.execute("SELECT 1 FROM restarted LIMIT 1").fetchall():
        return rows
    thread = "PARTITION BY capture, tid ORDER BY time"
    follows = " AND ".join(
        f"lag({column}) OVER thread IS NOT DISTINCT FROM {column}" for column in _SAME
    )
    same = " AND ".join(f"calls.{name} IS NOT DISTINCT FROM chains.{name}" for name in _PLACE)
    # Each row of a chain with the moment in which the chain began, and whether it is the last one.
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE chains AS
        WITH calls AS (
            SELECT calls.* FROM ({rows}) AS calls SEMI JOIN restarted
            ON calls.tid = restarted.tid AND calls.capture IS NOT DISTINCT FROM restarted.capture
            WHERE layer = 'syscall'
        ), linked AS (
            SELECT {places}, latency_ns, contains(flags, 'restarted') AS is_restarted,
                coalesce(lag(contains(flags, 'restarted')) OVER thread AND {follows}, false)
                    AS follows
            FROM calls WINDOW thread AS ({thread})
        ), numbered AS (
            SELECT *, sum((NOT follows)::INT) OVER ({thread}) AS chain FROM linked
        )
        SELECT {places}, is_restarted,
            min(time) OVER (PARTITION BY capture, tid, chain) AS began,
            time = max(time) OVER (PARTITION BY capture, tid, chain) AS is_last
        FROM numbered
        QUALIFY count(*) OVER (PARTITION BY capture, tid, chain) > 1 OR is_restarted
        """
    )
    return f"""
        SELECT calls.* REPLACE (
            coalesce(began, calls.time) AS time,
            latency_ns + coalesce(epoch_ns(calls.time) - epoch_ns(began), 0) AS latency_ns,
            CASE WHEN is_restarted AND latency_ns IS NOT NULL THEN {_EINTR}::SMALLINT ELSE errno END
                AS errno
        )
        FROM ({rows}) AS calls LEFT JOIN chains ON layer = 'syscall' AND {same}
        WHERE coalesce(is_last, true)
    """
