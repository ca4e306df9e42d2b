# SPDX-License-Identifier: GPL-2.0-only
"""Makes one row of a system call that a signal interrupted and the kernel began again."""

from collections.abc import Sequence

from duckdb import DuckDBPyConnection

_IS_RESTARTED = "layer = 'syscall' AND contains(flags, 'restarted')"
_THREAD = ("host", "tid", "process_start")  # a recording may go on in the next capture
_PLACE = ("capture", "tid", "time")
# What a call that is begun again has in common with the one before, its next row of the thread; and
# its bytes, if they do not depend on how it ended.
_SAME = ("op", "fd", '"offset"')
_SAME_BYTES = "lag(bytes) OVER thread IN (0, bytes)"
_EINTR = 4


def merge_restarted(connection: DuckDBPyConnection, rows: str) -> str:
    """A query for the same rows, in which a call is one from its first begin to its last end.

    One that was interrupted and not begun again failed with EINTR.
    """
    places = ", ".join(_PLACE)
    connection.execute(
        f"CREATE OR REPLACE TABLE restarted AS SELECT DISTINCT {', '.join(_THREAD)} FROM ({rows})"
        f" WHERE {_IS_RESTARTED}"
    )
    if not connection.execute("SELECT 1 FROM restarted LIMIT 1").fetchall():
        return rows
    thread = f"PARTITION BY {', '.join(_THREAD)}"
    same_call = (f"lag({column}) OVER thread IS NOT DISTINCT FROM {column}" for column in _SAME)
    follows = " AND ".join([_SAME_BYTES, *same_call])
    same = _equal("calls", "chains", _PLACE)
    # Each row of a chain with the moment in which the chain began, and whether it is the last one.
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE chains AS
        WITH calls AS (
            SELECT calls.* FROM ({rows}) AS calls SEMI JOIN restarted
            ON {_equal("calls", "restarted", _THREAD)}
            WHERE layer = 'syscall'
        ), linked AS (
            SELECT {places}, host, process_start, contains(flags, 'restarted') AS is_restarted,
                coalesce(lag(contains(flags, 'restarted')) OVER thread AND {follows}, false)
                    AS follows
            FROM calls WINDOW thread AS ({thread} ORDER BY time)
        ), numbered AS (
            SELECT *, sum((NOT follows)::INT) OVER ({thread} ORDER BY time) AS chain FROM linked
        )
        SELECT {places}, is_restarted,
            min(time) OVER ({thread}, chain) AS began,
            time = max(time) OVER ({thread}, chain) AS is_last
        FROM numbered
        QUALIFY count(*) OVER ({thread}, chain) > 1 OR is_restarted
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


def _equal(left: str, right: str, columns: Sequence[str]) -> str:
    return " AND ".join(f"{left}.{name} IS NOT DISTINCT FROM {right}.{name}" for name in columns)
