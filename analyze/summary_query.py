# SPDX-License-Identifier: GPL-2.0-only
"""Writes the SQL that sums up I/Os: one pass over the rows, then only over what it left."""

from collections.abc import Sequence

from analyze.groupings import SORTS
from analyze.latency import PERCENTILES, bucket_sql, histogram_sql, percentile_sql
from analyze.row_query import CAUSE_COLUMNS, PROCESS_NAME
from analyze.schema import FLUSH_OPS, READ_OPS, WRITE_OPS

# A column of `fine`: in which slice of time the I/O was submitted.
INTERVAL = "interval_number"

# A size class reaches from its name, a power of two, to the next one.
# Whose I/O it is, and how that is known. What the kernel writes for the page cache is that of who
# dirtied the file last, or of the cgroup to which it is charged, or is known by its file only.
_IS_OF_KWORKER = "comm LIKE 'kworker/%'"
_IS_CHARGED = f"{_IS_OF_KWORKER} AND charged_cgroup <> '/' AND charged_cgroup <> cgroup"
_KEY_VALUES = {
    "process": PROCESS_NAME,
    "owner": f"CASE WHEN dirtier IS NOT NULL THEN dirtier WHEN {_IS_CHARGED} THEN charged_cgroup"
    f" WHEN {_IS_OF_KWORKER} AND file IS NOT NULL THEN file ELSE {PROCESS_NAME} END",
    "owner_by": "CASE WHEN dirtier IS NOT NULL THEN 'dirtied last'"
    f" WHEN {_IS_CHARGED} THEN 'writeback cgroup'"
    f" WHEN {_IS_OF_KWORKER} AND file IS NOT NULL THEN 'inode'"
    " WHEN comm IS NOT NULL THEN 'submitter' END",
    # What moves no data has none; else, as of direct I/O, it is not known.
    "file": f"CASE WHEN file IS NULL AND op NOT IN {(*READ_OPS, *WRITE_OPS)} THEN '' ELSE file END",
    "size_class_bytes": "CASE WHEN bytes > 0 THEN 1::BIGINT << least(floor(log2(bytes)), 62)::INT"
    " ELSE 0 END",
}
_FAILED = -(2**15)  # the bucket of all failed I/Os: a key of their own would take longer
_BUCKET = f"CASE WHEN errno <> 0 THEN ({_FAILED})::SMALLINT ELSE {bucket_sql('latency_ns')} END"
_PERCENTILES = {f"{name}_ns": fraction for name, fraction in PERCENTILES.items()}

# Each FILTER costs about a second in 100 M rows, so what depends on the op, or on how the I/O
# ended, is told apart when the few rows of `fine` are summed up.
_FINE_SUMS = """
    count(*) AS ios, sum(moved) AS bytes,
    min(latency_ns) AS min_ns, max(latency_ns) AS max_ns, sum(latency_ns) AS latency_sum_ns,
    sum(queue_ns) AS queue_sum_ns, sum(latency_ns - queue_ns) AS device_sum_ns
"""
_SUMS_OF_FINE = """
    sum(ios) AS ios, sum(bytes) AS bytes, min(min_ns) AS min_ns, max(max_ns) AS max_ns,
    sum(latency_sum_ns) AS latency_sum_ns, sum(queue_sum_ns) AS queue_sum_ns,
    sum(device_sum_ns) AS device_sum_ns
"""
_IS_READ, _IS_WRITE = f"op IN {READ_OPS}", f"op IN {WRITE_OPS}"
# The wait for a cache flush is part of that for the flush or write which caused it.
_IS_CACHE_FLUSH = "op IS NOT DISTINCT FROM 'cache_flush'"
_IS_GOOD = f"bucket <> {_FAILED}"
_SIZED_OPS = {
    "read_bytes": _IS_READ,
    "write_bytes": _IS_WRITE,
    "discarded_bytes": "op IN ('discard', 'secure_erase')",
    "zeroed_bytes": "op = 'write_zeroes'",
}
_SIZES = ", ".join(
    f"coalesce(sum(bytes) FILTER ({ops} AND bucket IS DISTINCT FROM {_FAILED}), 0) AS {name}"
    for name, ops in _SIZED_OPS.items()
)
_GROUP_SUMS = f"""
    coalesce(sum(ios), 0)::BIGINT AS ios,
    coalesce(sum(ios) FILTER (bucket IS NULL), 0)::BIGINT AS in_flight,
    coalesce(sum(ios) FILTER ({_IS_GOOD}), 0)::BIGINT AS good,
    coalesce(sum(ios) FILTER (bucket = {_FAILED}), 0)::BIGINT AS errors,
    coalesce(sum(ios) FILTER ({_IS_READ}), 0)::BIGINT AS reads,
    coalesce(sum(ios) FILTER ({_IS_WRITE}), 0)::BIGINT AS writes,
    coalesce(sum(ios) FILTER (op IN {FLUSH_OPS}), 0)::BIGINT AS flushes,
    {_SIZES},
    coalesce(sum(latency_sum_ns), 0) AS time_ns,
    coalesce(sum(latency_sum_ns) FILTER ({_IS_GOOD}), 0) AS latency_sum_ns,
    min(min_ns) FILTER ({_IS_GOOD}) AS min_ns, max(max_ns) FILTER ({_IS_GOOD}) AS max_ns,
    read_bytes + write_bytes AS moved_bytes,
    sum(latency_sum_ns) FILTER ({_IS_GOOD}) / sum(ios) FILTER ({_IS_GOOD}) AS avg_ns,
    sum(queue_sum_ns) FILTER ({_IS_GOOD}) / sum(queue_sum_ns + device_sum_ns) FILTER ({_IS_GOOD})
        AS queue_share
"""


def fine_query(
    keys: Sequence[str], interval_sql: str | None = None, condition: str = "true"
) -> str:
    """Sums of the rows of `io` by key, op and latency bucket, null for I/Os in flight.

    With SQL for the number of an interval also by that, as INTERVAL; only of the rows for which
    the condition holds.
    """
    columns = [f"{key_sql(key)} AS {key}" for key in keys if key != "op"]
    columns += [f"{interval_sql} AS {INTERVAL}"] * (interval_sql is not None)
    columns += ["op", f"{_BUCKET} AS bucket"]
    sums = ", ".join([*columns, _FINE_SUMS])
    rows = "io" if {*CAUSE_COLUMNS}.isdisjoint(keys) else "caused AS io"
    return f"SELECT {sums} FROM {rows} WHERE {condition} GROUP BY ALL"


def whole_query(keys: Sequence[str], table: str) -> str:
    """The same sums without INTERVAL, of a table that has them with it."""
    columns = ", ".join(dict.fromkeys([*keys, "op", "bucket"]))
    return f"SELECT {columns}, {_SUMS_OF_FINE} FROM {table} GROUP BY ALL"


def key_sql(key: str) -> str:
    """SQL for the value of a column of a key, in a row of `io`."""
    return _KEY_VALUES.get(key, key)


def part_query(*, cache_flushes: bool, table: str = "fine") -> str:
    """Those rows of a table as fine_query makes it that are cache flushes, or the others."""
    return f"SELECT * FROM {table} WHERE {'' if cache_flushes else 'NOT '}({_IS_CACHE_FLUSH})"


def groups_query(part: str, keys: Sequence[str], sort: str, limit: int, *, histogram: bool) -> str:
    """The largest groups of a part of `fine`, in order; without keys the one row of all of it.

    With INTERVAL among the keys the largest of each interval, one interval after the other. `good`
    counts the I/Os that succeeded, and `histogram` lists them by doubling of their latency: below
    2 us, below 4 us and so on.
    """
    key_list = "".join(f"{key}, " for key in keys)
    order = ", ".join([f"{SORTS[sort]} DESC NULLS LAST", *keys])
    largest = f"ORDER BY {order} LIMIT {limit}"
    if INTERVAL in keys:
        rank = f"row_number() OVER (PARTITION BY {INTERVAL} ORDER BY {order})"
        largest = f"QUALIFY {rank} <= {limit} ORDER BY {INTERVAL}, {order}"
    # Percentiles are dear, so they are computed of the largest groups only, if those are known.
    choice = "" if SORTS[sort] in _PERCENTILES else largest
    same_key = " AND ".join(
        ["true", *(f"top.{key} IS NOT DISTINCT FROM part.{key}" for key in keys)]
    )
    percentiles = ", ".join(
        f"{percentile_sql(fraction)} AS {name}" for name, fraction in _PERCENTILES.items()
    )
    return f"""
        WITH part AS ({part}), top AS (
            FROM (SELECT {key_list} {_GROUP_SUMS} FROM part GROUP BY ALL) {choice}
        ), buckets AS (
            SELECT {key_list} bucket, sum(ios) AS bucket_ios, min(min_ns) AS low_ns,
                max(max_ns) AS high_ns
            FROM part SEMI JOIN top ON {same_key} WHERE {_IS_GOOD} GROUP BY ALL
        ), ranked AS (
            SELECT *, sum(bucket_ios) OVER (
                {f"PARTITION BY {', '.join(keys)}" if keys else ""} ORDER BY bucket
            )::BIGINT AS stop_rank, stop_rank - bucket_ios AS start_rank
            FROM buckets
        )
        FROM (
            SELECT top.*, {percentiles}, {histogram_sql() if histogram else "NULL"} AS histogram
            FROM top LEFT JOIN ranked AS part ON {same_key}
            GROUP BY ALL
        ) {largest}
    """
