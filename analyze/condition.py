"""Checks that a SQL condition from the command line can do nothing but filter rows."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from analyze.errors import IorecError

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


def check_condition(connection: duckdb.DuckDBPyConnection, condition: str, table: str) -> None:
    """Raises IorecError unless `condition` is one boolean expression over the columns of `table`.

    Its functions must be pure ones of a single row.
    """
    for part in _walk(_parse(connection, condition)):
        kind = part.get("class")
        if kind is not None and kind not in _ALLOWED_CLASSES:
            raise _refused(f"a {kind.lower()} is not allowed in it")
        if kind == "FUNCTION" and not _is_pure(connection, part["function_name"]):
            raise _refused(f"it cannot use the function {part['function_name']}")
    try:
        # What stands after WHERE as well as in parentheses is an expression and nothing more. The
        # line break ends a comment.
        query = f"DESCRIBE SELECT ({condition}\n) FROM {table}"
        [(_, column_type, *_)] = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise _refused(first_line(error)) from error
    if column_type != "BOOLEAN":
        raise _refused("it is not a condition: it is neither true nor false")


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


def _is_pure(connection: duckdb.DuckDBPyConnection, function_name: str) -> bool:
    found = connection.execute(
        "SELECT function_type, stability FROM duckdb_functions() WHERE function_name = ?",
        [function_name],
    ).fetchall()
    return bool(found) and set(found) == {("scalar", "CONSISTENT")}


def _refused(cause: str) -> IorecError:
    return IorecError(
        f"cannot filter by --where: {cause}",
        "write a condition on the columns, such as \"op = 'read' AND latency_ns > 1000000\";"
        ' the column "offset" needs the double quotes',
        exit_code=2,
    )
