# SPDX-License-Identifier: GPL-2.0-only
"""What the screen of top looks at, as a condition on the rows."""

from contextlib import ExitStack

import pytest

from analyze.database import open_database
from analyze.groupings import GROUPINGS
from analyze.selection import Window
from analyze.summary import summarize
from analyze.table_rows import open_table
from iorec.live.look import Look
from tests.builders import described, table

NAMES = ["fio", "it's", 'a "b"', "50%", "\x1b[31mred", "[bold]", None]
ROWS = table(len(NAMES), comm=NAMES, pid=[*range(len(NAMES))], file=[*NAMES[1:], "Log"])
MASKED = Look(("comm",), "time")


def found(look: Look) -> list[str | None]:
    with ExitStack() as resources:
        metadata = described(ROWS)
        window = Window(metadata.started_at, metadata.stopped_at)
        connection = open_database((), resources)
        rows = open_table(connection, ROWS, metadata, window, look.where)
        return [group.key["comm"] for group in summarize(rows, "comm").groups]  # type: ignore


@pytest.mark.parametrize("name", NAMES)
def test_looking_into_a_group_leaves_its_rows(name: str | None) -> None:
    assert found(MASKED.into({"comm": name})) == [name]


def test_every_grouping_can_be_looked_into_and_filtered() -> None:
    with ExitStack() as resources:
        metadata = described(ROWS)
        window = Window(metadata.started_at, metadata.stopped_at)
        connection = open_database((), resources)
        for by in [(name,) for name in GROUPINGS] + [("device", "op")]:
            rows = open_table(connection, ROWS, metadata, window)
            [group, *_] = summarize(rows, by).groups
            look = Look(by, "time", text="x").into(group.key)
            assert look.text == ""
            inner = open_table(connection, ROWS, metadata, window, look.where)
            assert summarize(inner, by).groups[0].ios == group.ios, by
            open_table(connection, ROWS, metadata, window, Look(by, "time", text="'x").where)


def test_a_text_is_looked_for_in_the_key_alone_whatever_its_case() -> None:
    assert found(Look(("comm",), "time", text="FIO")) == ["fio"]
    assert found(Look(("comm",), "time", text="%")) == ["50%"]
    assert found(Look(("comm",), "time", text="'")) == ["it's"]
    assert found(Look(("comm",), "time", text="log")) == []


def test_back_out_goes_the_way_in() -> None:
    look = Look(("cgroup",), "time")
    assert look.where is None
    inner = look.into({"cgroup": "/a"}).into({"pid": 7, "process": "fio"})
    assert inner.by == ("file",)
    assert str(inner) == "in cgroup /a, in process 7 fio"
    filtered = Look(inner.by, "time", "x", inner.within)
    assert filtered.out() == inner
    assert inner.out().by == ("process",)
    assert inner.out().out() == look == look.out()
