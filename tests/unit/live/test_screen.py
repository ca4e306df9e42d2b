# SPDX-License-Identifier: GPL-2.0-only
"""The screen of top: keys, order, filter, drilling, help and pause, small and large."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue

import pyarrow as pa
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from analyze.database import open_database
from analyze.selection import Window
from analyze.typed_json import EpochNs
from iorec.live.form import TopForm
from iorec.live.requests import Incoming, Outgoing, request_pair
from iorec.live.screen import Help, Top
from iorec.live.slices import Slice, Summer
from tests.builders import SECOND_NS, START_NS, described, table

SMALL, LARGE = (80, 24), (200, 50)
Act = Callable[[Top, Pilot[None], "SimpleQueue[Slice | None]"], Awaitable[None]]
FORM = TopForm(("process",), "in-flight", 200, SECOND_NS, 0, 80)


def part(rows: pa.Table, second: int = 0, **missing: int) -> Slice:
    window = Window(START_NS + second * SECOND_NS, START_NS + (second + 1) * SECOND_NS)
    metadata = replace(described(rows), stopped_at=EpochNs(window.end_ns))
    return Slice(window, rows, metadata, **{"lost": 0, "left_out": 0, **missing})


def some_rows() -> pa.Table:
    """One process has many quick I/Os, another few slow ones, on two devices."""
    return pa.concat_tables(
        [
            table(90, comm="quick", pid=7, file="/data/log", latency_ns=100_000),
            table(4, comm="slow", pid=8, device="sda", file="/etc/[b]", latency_ns=5_000_000),
        ]
    )


def show(
    act: Act,
    *,
    size: tuple[int, int] = SMALL,
    first: Slice | None = None,
    requests: Outgoing | None = None,
) -> None:
    """Runs the screen with a slice, does something with it, and ends it."""

    async def run(summer: Summer) -> None:
        queue = SimpleQueue[Slice | None]()
        queue.put(first or part(some_rows()))
        top = Top(summer, FORM, iter(queue.get, None), requests)
        async with top.run_test(size=size) as pilot:
            await pilot.pause()
            await act(top, pilot, queue)
            queue.put(None)
        assert top.failure is None

    with ExitStack() as resources:
        asyncio.run(run(Summer(open_database((), resources))))


def lines(top: Top) -> list[str]:
    """The table as it is, the titles first."""
    grid = top._main.query_one(DataTable)
    rows = [[column.label.plain for column in grid.ordered_columns]]
    rows += [[cell.plain for cell in grid.get_row_at(row)] for row in range(grid.row_count)]
    return ["  ".join(row) for row in rows]


def text(top: Top, name: str) -> str:
    return str(top._main.query_one(f"#{name}", Static).content)


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_all_lines_fit_on_the_terminal(size: tuple[int, int]) -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        assert "94 I/Os" in text(top, "head")
        assert max(map(len, lines(top))) <= size[0] - 2
        assert lines(top)[1].split()[0] == "total"
        heat = text(top, "heat").split("\n")
        assert len(heat) == (12 if size == LARGE else 7)
        assert {len(line) for line in heat} <= {size[0], size[0] - 1, size[0] - 2}
        [quick] = [line for line in heat if line.startswith(" 100 µs")]
        assert quick.rstrip()[-1] == "█"
        for name in ("IOPS", "P99", "IN FLIGHT▼", "ERRORS"):
            assert name in lines(top)[0]
        assert ("P50" in lines(top)[0]) == (size == LARGE)

    show(act, size=size)


def test_keys_choose_the_view_and_the_order() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        assert "[processes]" in text(top, "views")
        assert [line.split()[1] for line in lines(top)[2:]] == ["slow", "quick"]
        await press(pilot, *[">"] * 3)  # busy, errors, and round to IOPS
        assert "IOPS▼" in lines(top)[0]
        assert [line.split()[1] for line in lines(top)[2:]] == ["quick", "slow"]
        await press(pilot, "<", "<")
        assert "BUSY▼" in lines(top)[0]
        await press(pilot, "2")
        assert "[devices]" in text(top, "views")
        assert {line.split()[0] for line in lines(top)[2:]} == {"loop0", "sda"}
        await press(pilot, "tab")
        assert "[files]" in text(top, "views")
        assert any("/etc/[b]" in line for line in lines(top))  # a name is no markup
        await press(pilot, "4")
        assert "[cgroups]" in text(top, "views")

    show(act)


def test_a_filter_leaves_the_lines_that_contain_it() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        await press(pilot, "slash", *"QUI", "enter")
        assert [line.split()[1] for line in lines(top)[2:]] == ["quick"]
        assert "90 I/Os" in text(top, "head")
        assert 'with "QUI"' in text(top, "views")
        await press(pilot, "escape")
        assert len(lines(top)) == 4
        await press(pilot, "slash", *"p1q?")  # letters, no keys
        assert not top._is_paused
        assert len(lines(top)) == 2
        await press(pilot, "escape")
        assert len(lines(top)) == 4

    show(act)


def test_enter_looks_into_a_line_and_escape_goes_back() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        await press(pilot, "down", "enter")
        assert "in process 7 quick" in text(top, "views")
        assert [line.split()[0] for line in lines(top)[2:]] == ["/data/log"]
        await press(pilot, "2")
        assert [line.split()[0] for line in lines(top)[2:]] == ["loop0"]
        await press(pilot, "enter")
        assert "in device loop0" in text(top, "views")
        await press(pilot, "escape", "escape")
        assert len(lines(top)) == 4
        await press(pilot, "up", "up", "up", "enter")  # the line of all
        assert len(lines(top)) == 4

    show(act)


def test_a_pause_keeps_what_is_shown_and_the_cursor_keeps_its_line() -> None:
    async def act(top: Top, pilot: Pilot[None], queue: "SimpleQueue[Slice | None]") -> None:
        await press(pilot, "down", "p")
        assert "PAUSED" in text(top, "head")
        busy = table(500, comm="slow", pid=8, latency_ns=50_000_000)
        queue.put(part(pa.concat_tables([busy, some_rows()]), 1, lost=1))
        await pilot.pause(1)
        assert "94 I/Os" in text(top, "head")
        await press(pilot, "space")
        queue.put(part(pa.concat_tables([some_rows(), table(9, comm="a", pid=1)]), 2, lost=1))
        await pilot.pause(1)
        assert "PAUSED" not in text(top, "head")
        assert "103 I/Os, 1 I/O lost" in text(top, "head")
        assert "≥IOPS" in lines(top)[0]
        assert top._chosen == {"pid": 7, "process": "quick"}

    show(act)


def test_help_lists_the_keys_and_what_comes_meanwhile_is_shown_after_it() -> None:
    async def act(top: Top, pilot: Pilot[None], queue: "SimpleQueue[Slice | None]") -> None:
        await press(pilot, "?")
        assert isinstance(top.screen, Help)
        queue.put(part(table(5), 1))
        await pilot.pause(1)
        await press(pilot, "q")  # closes it, and no more
        assert "5 I/Os" in text(top, "head")
        assert top.is_running

    show(act)


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["slash", "ctrl+c"], ["?", "ctrl+c"]])
def test_q_and_ctrl_c_quit(keys: list[str]) -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        await press(pilot, *keys)
        assert top._exit

    show(act)


def test_it_ends_with_the_recording() -> None:
    async def act(top: Top, pilot: Pilot[None], queue: "SimpleQueue[Slice | None]") -> None:
        queue.put(None)
        await pilot.pause(1)
        assert top._exit

    show(act)


def test_nothing_is_a_screen_too() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        assert len(lines(top)) == 2
        await press(pilot, "enter", "3", "slash", "x", "enter")
        assert text(top, "heat").strip()

    show(act, first=part(table(0)))


def test_whatever_goes_wrong_where_it_is_summed_up_ends_the_screen() -> None:
    def failing() -> Iterator[Slice]:
        yield part(some_rows())
        raise ValueError("a defect")

    async def run(summer: Summer) -> None:
        top = Top(summer, FORM, failing(), None)
        await top.run_async(headless=True)
        assert isinstance(top.failure, ValueError)

    with ExitStack() as resources:
        asyncio.run(asyncio.wait_for(run(Summer(open_database((), resources))), 60))


def test_r_asks_for_a_capture_and_says_what_becomes_of_it() -> None:
    with ExitStack() as stack:
        ours, theirs = map(stack.enter_context, request_pair())
        recorder = Incoming(ours)

        async def act(top: Top, pilot: Pilot[None], _: object) -> None:
            assert not recorder.take()
            await press(pilot, "r")
            assert recorder.take()
            assert not recorder.take()
            assert "is about to begin" in text(top, "foot")
            recorder.answer("recording to [b]\x1b[2J.parquet", is_recording=True)
            await until(pilot, lambda: "r ends it" in text(top, "foot"))
            assert "recording to [b]\\x1b[2J.parquet" in text(top, "foot")
            await press(pilot, "r")
            assert recorder.take()
            assert "is about to end" in text(top, "foot")
            recorder.answer("recorded x" * 500, is_recording=False)
            await until(pilot, lambda: "r records again" in text(top, "foot"))
            ours.close()

        show(act, requests=Outgoing(theirs))


def test_r_where_all_is_recorded_says_so() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        await press(pilot, "r")
        assert "capture of -o" in text(top, "foot")

    show(act)


async def until(pilot: Pilot[None], is_so: Callable[[], bool]) -> None:
    for _ in range(200):
        if is_so():
            return
        await pilot.pause(0.05)
    raise AssertionError("it never was")


def test_on_a_low_terminal_the_table_has_the_room() -> None:
    async def act(top: Top, pilot: Pilot[None], _: object) -> None:
        grid = top._main.query_one(DataTable)
        assert grid.size.height >= 3  # titles, total and a process
        assert text(top, "heat") == ""
        await pilot.resize_terminal(*SMALL)
        await until(pilot, lambda: "│" in text(top, "heat"))

    show(act, size=(60, 7))
