# SPDX-License-Identifier: GPL-2.0-only
"""Checks that a SQL condition from the command line can do nothing but filter rows."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from analyze.errors import IorecError, unknown_name
from analyze.row_query import CAUSE_COLUMNS, ORIGIN_COLUMNS
from analyze.schema import SCHEMA

# What an expression over one row is made of: no subquery, window, lambda, parameter or star.
_ALLOWED_CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "OPERATOR",
        "TYPE",
    }
)
# Of the operators those that make no list, array or struct.
_ALLOWED_OPERATORS = frozenset(
    {
        "COMPARE_IN",
        "COMPARE_NOT_IN",
        "OPERATOR_COALESCE",
        "OPERATOR_IS_NOT_NULL",
        "OPERATOR_IS_NULL",
        "OPERATOR_NOT",
    }
)
# Pure functions of one row whose result is not longer than what they are given, however they are
# nested: repeat, lpad, replace, format, printf, hex, || and lists could fill the memory, or take
# hours.
_FUNCTIONS = """
    + - * / // % ** ^ & | ~ << >> abs ceil ceiling floor round trunc sign sqrt ln log log2 log10 pow
    power xor greatest least nullif isnan isinf isfinite mod divide add subtract multiply
    ~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape ^@
    regexp_matches regexp_full_match contains starts_with ends_with prefix suffix
    lower upper lcase ucase trim ltrim rtrim left right substring substr
    length len strlen instr position strpos
    date_part datepart date_trunc datetrunc date_diff datediff epoch epoch_ms epoch_us epoch_ns
    year month day hour minute second millisecond microsecond nanosecond dayofweek isodow
    to_days to_hours to_minutes to_seconds to_milliseconds to_microseconds
"""
_ALLOWED_FUNCTIONS = frozenset(_FUNCTIONS.split())
# Each value of these is short, or a string. A BLOB as a BIT as a string is eight times as long.
_TYPES = """
    boolean bool tinyint smallint integer int int1 int2 int4 int8 short long bigint hugeint
    utinyint usmallint uinteger ubigint uhugeint float float4 float8 real double decimal numeric
    varchar text string char bpchar date time timestamp datetime timestamp_s timestamp_ms
    timestamp_us timestamp_ns timestamptz interval
"""
_ALLOWED_TYPES = frozenset(_TYPES.split()) | {"timestamp with time zone", "time with time zone"}
_COLUMNS = (*SCHEMA.names, *ORIGIN_COLUMNS, *CAUSE_COLUMNS)
_REGEXES = ("regexp_matches", "regexp_full_match")


def check_condition(
    connection: duckdb.DuckDBPyConnection, condition: str, table: str
) -> frozenset[str]:
    """The columns of `table` that a condition on its rows names.

    Raises IorecError unless it is one boolean expression over these.

    What it is made of is on lists of what is pure and cannot make a long value of a short one, so
    that a hostile condition takes neither the memory nor hours.
    """
    names = set()
    for part in _walk(_parse(connection, condition)):
        kind = part.get("class")
        if kind is not None and kind not in _ALLOWED_CLASSES:
            raise _refused(f"a {kind.lower()} is not allowed in it")
        if kind == "OPERATOR" and part["type"] not in _ALLOWED_OPERATORS:
            raise _refused(f"{part['type'].replace('_', ' ').lower()} is not allowed in it")
        if kind == "TYPE" and part["type_name"].lower() not in _ALLOWED_TYPES:
            raise _refused(f"it cannot use the type {part['type_name']}")
        if kind == "FUNCTION":
            _check_function(part)
        if kind == "COLUMN_REF":
            name = part["column_names"][-1]
            if name.lower() not in _COLUMNS:
                # Not by DuckDB, for which some names, such as user, are values.
                raise unknown_name("filter by --where: there is no column", name, _COLUMNS)
            names.add(name.lower())
    try:
        # What stands after WHERE as well as in parentheses is an expression and nothing more. The
        # line break ends a comment.
        query = f"DESCRIBE SELECT ({condition}\n) FROM {table}"
        [(_, column_type, *_)] = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise _refused(first_line(error)) from error
    if column_type != "BOOLEAN":
        raise _refused("it is not a condition: it is neither true nor false")
    return frozenset(names)


def first_line(error: duckdb.Error) -> str:
    """DuckDB's cause without its kind before and the excerpt of the query after it."""
    return str(error).split("\n", 1)[0].split("Error: ", 1)[-1]


def _parse(connection: duckdb.DuckDBPyConnection, condition: str) -> Any:
    """The syntax tree of the condition."""
    query = f"SELECT 1 WHERE {condition}\n"
    try:
        [(text,)] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        tree = json.loads(text)
    except (duckdb.Error, RecursionError, UnicodeEncodeError) as error:
        raise _refused("it cannot be parsed") from error
    if tree["error"]:
        raise _refused(tree["error_message"].split("\n", 1)[0])
    return tree["statements"]


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in a syntax tree."""
    pending = [tree]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            yield part
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)


def _check_function(part: dict[str, Any]) -> None:
    name = part["function_name"]
    if name.lower() not in _ALLOWED_FUNCTIONS:
        raise _refused(f"it cannot use the function {name}")
    if name.lower() not in _REGEXES:
        return
    for argument in part["arguments"][1:]:
        if argument["name"] or argument["expression"].get("class") != "CONSTANT":
            raise _refused("a regular expression in it must be a constant")
        if "{" in argument["expression"]["literal"].get("text", ""):
            # RE2 repeats what stands before: 900 times for ((a?){30}){30}.
            raise _refused("a regular expression in it cannot count with braces")


def _refused(cause: str) -> IorecError:
    return IorecError(
        f"cannot filter by --where: {cause}",
        "write a condition on the columns, such as \"op = 'read' AND latency_ns > 1000000\";"
        ' the column "offset" needs the double quotes',
        exit_code=2,
    )
