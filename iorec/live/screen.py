# SPDX-License-Identifier: GPL-2.0-only
"""The viewer of `iorec top`: a full screen, drawn once for each interval."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import chain
from socket import socket
from threading import Thread
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Input, Static

from analyze.activity import Activity
from analyze.column_names import column_name
from analyze.database import open_database
from analyze.escape import escape_for_terminal
from analyze.groups import Key
from analyze.render.activity import SHOWN_SORTS, activity_columns
from analyze.render.table import pad
from analyze.typed_json import parse_object
from analyze.units import format_count
from iorec.live.form import TopForm
from iorec.live.heat import Heat
from iorec.live.help import HELP
from iorec.live.look import Look
from iorec.live.requests import Answer, Outgoing
from iorec.live.slices import Slice, Summer, follow_slices
from iorec.live.style import CSS
from iorec.live.tables import headline

_VIEWS = ("process", "device", "file", "cgroup")
_VIEW_NAMES = ("processes", "devices", "files", "cgroups")
_KEYS = "? help  1-4 view  < > sort  / filter  enter into  p pause  r record  q quit"
_SHORT = 15  # lines of a terminal, on fewer of which there is no room for the picture
_TALL = 40  # from which on there is room for a finer one


class Help(ModalScreen[None]):
    """The keys, and what the columns mean."""

    BINDINGS: ClassVar = [Binding("escape,q,question_mark", "app.pop_screen")]

    def compose(self) -> ComposeResult:
        yield Static(Content(HELP), id="help")


class Top(App[None]):
    """Shows slices as they come, until they end or somebody quits."""

    ENABLE_COMMAND_PALETTE = False
    CSS = CSS
    BINDINGS: ClassVar = [
        *(Binding(str(place + 1), f"view({place})") for place in range(len(_VIEWS))),
        Binding("tab", "next_view", priority=True),
        Binding("less_than_sign,comma", "sort(-1)"),
        Binding("greater_than_sign,full_stop", "sort(1)"),
        Binding("slash", "filter"),
        Binding("escape", "out"),
        Binding("p,space", "pause"),
        Binding("r", "record"),
        Binding("question_mark,h", "help"),
        Binding("q", "quit"),
        Binding("ctrl+c", "quit", priority=True),
    ]

    def __init__(
        self, summer: Summer, form: TopForm, slices: Iterable[Slice], requests: Outgoing | None
    ) -> None:
        """Of the slices there is one at least; without `requests` all goes to a capture."""
        super().__init__()
        self.failure: Exception | None = None  # why it has ended, if not in order
        self.theme = "ansi-dark"  # the terminal's own colours
        self.animation_level = "none"
        self._summer = summer
        self._top = form.top
        self._slices: Iterator[Slice] = iter(slices)
        self._slice = next(self._slices)
        self._requests = requests
        self._answer = Answer("", is_recording=False)
        self._look = Look(form.by, form.sort)
        self._heat = Heat()
        self._keys: list[Key] = []
        self._is_paused = self._is_due = False
        self._filled: tuple[Any, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="views")
        yield DataTable[Content](cursor_type="row", fixed_rows=1)
        yield Input(placeholder="text, then enter", select_on_focus=False)
        yield Static(id="heat")
        yield Static(Content(f" {_KEYS}"), id="foot")

    def on_mount(self) -> None:
        self._take(self._slice)
        # Nobody waits for it, unlike for a worker: it may wait itself, for what comes.
        Thread(target=self._follow, daemon=True).start()
        if self._requests is not None:
            Thread(target=self._listen, args=(self._requests,), daemon=True).start()

    def on_resize(self) -> None:
        self.call_later(self._draw)  # its size is still the old one

    def _follow(self) -> None:
        try:
            for part in self._slices:
                self.call_from_thread(self._take, part)
        except Exception as error:
            # Without this thread the screen would stand still, and nobody would know.
            if self.is_running:
                self.failure = error
        self.exit()

    def _listen(self, requests: Outgoing) -> None:
        with suppress(RuntimeError):  # the screen is no longer there
            while answer := requests.wait():
                self.call_from_thread(self._hear, answer)

    def _hear(self, answer: Answer) -> None:
        self._answer = answer
        end = "r ends it" if answer.is_recording else "r records again"
        self._show("foot", f" {escape_for_terminal(answer.text)}: {end}, ? help, q quit")

    def _take(self, part: Slice) -> None:
        self._heat.add(self._summer.rows(part) if len(part.table) else None)
        if not self._is_paused:
            self._slice = part
            self._draw()

    def _draw(self) -> None:
        """Shows the slice as it is looked at."""
        self._is_due = False
        look, part = self._look, self._slice
        if not self._main.query("#foot"):
            return  # it is not there yet
        activity = self._summer.load(part, look.by, look.sort, self._top, look.where)
        is_too_low = part.lost + part.left_out > 0
        head = headline(part, activity.summary.total.ios)
        state = " PAUSED: p goes on " * self._is_paused
        self._show("head", f" iorec top  {head}{'  ' * self._is_paused}{state}")
        self._show("views", self._views(activity))
        filled = activity, self.size, is_too_low
        if filled != self._filled:  # on an idle machine one is as the other
            self._fill(activity, is_too_low=is_too_low)
        self._filled = filled
        heat: list[str] = []
        if self.size.height >= _SHORT:
            heat = self._heat.lines(self.size.width, is_fine=self.size.height >= _TALL)
        self._show("heat", "\n".join(heat))

    def _show(self, name: str, text: str) -> None:
        # As content: names are no markup.
        self._main.query_one(f"#{name}", Static).update(Content(text))

    def _views(self, activity: Activity) -> str:
        """The views, the one that is shown in brackets, and what they are narrowed to."""
        names = [
            f"[{name}]" if self._look.by == (view,) else f" {name} "
            for view, name in zip(_VIEWS, _VIEW_NAMES, strict=True)
        ]
        if self._look.by not in [(view,) for view in _VIEWS]:
            names.append(f"[{','.join(self._look.by)}]")
        more = activity.summary.group_count - len(activity.summary.groups)
        said = f"({format_count(more)} more)" if more else ""
        return "  ".join(filter(None, (" ".join(names), said, str(self._look))))

    def _fill(self, activity: Activity, *, is_too_low: bool) -> None:
        """The table, with the cursor on the same group if it is still there."""
        table = self._table
        chosen, row = self._chosen, table.cursor_row
        columns = activity_columns(activity, self.size.width - 3, is_too_low=is_too_low)
        table.clear(columns=True)
        lines = []
        for column in columns:
            title = column.title
            if column_name(title) == self._look.sort:
                title += "▼"
            *cells, total = column.cells
            width = max(Content(cell).cell_length for cell in (title, *column.cells))
            table.add_column(pad(title, width, column.is_text), width=width)
            lines.append([Content(pad(cell, width, column.is_text)) for cell in (total, *cells)])
        table.add_rows(zip(*lines, strict=True))
        self._keys = [group.key for group in activity.summary.groups]
        table.move_cursor(row=1 + self._keys.index(chosen) if chosen in self._keys else row or 1)

    @property
    def _chosen(self) -> Key | None:
        """The group in the line with the cursor; that of all, the first one, is none."""
        row = self._table.cursor_row
        return self._keys[row - 1] if 0 < row <= len(self._keys) else None

    @property
    def _main(self) -> Screen[Any]:
        """What is below the help."""
        return self.screen_stack[0]

    @property
    def _table(self) -> DataTable[Content]:
        return self._main.query_one(DataTable)

    @property
    def _field(self) -> Input:
        return self._main.query_one(Input)

    def _look_at(self, look: Look) -> None:
        self._look = look
        if not self._is_due:  # of keys that came at once, all are obeyed before anything is drawn
            self._is_due = True
            self.call_later(self._draw)

    def action_view(self, place: int) -> None:
        self._look_at(replace(self._look, by=(_VIEWS[place],), text=""))

    def action_next_view(self) -> None:
        by = self._look.by[0] if len(self._look.by) == 1 else ""
        self.action_view((_VIEWS.index(by) + 1) % len(_VIEWS) if by in _VIEWS else 0)

    def action_sort(self, step: int) -> None:
        sort = self._look.sort
        place = SHOWN_SORTS.index(sort) + step if sort in SHOWN_SORTS else 0
        self._look_at(replace(self._look, sort=SHOWN_SORTS[place % len(SHOWN_SORTS)]))

    def action_pause(self) -> None:
        self._is_paused = not self._is_paused
        self._draw()

    def action_record(self) -> None:
        if self._requests is None:
            self._show("foot", " all of this is recorded into the capture of -o: ? help, q quit")
            return
        self._requests.ask()
        verb = "end" if self._answer.is_recording else "begin"
        self._show("foot", f" the recording is about to {verb}")

    def action_out(self) -> None:
        is_typing = self._field.display
        self._end_typing()
        self._look_at(replace(self._look, text="") if is_typing else self._look.out())

    def action_filter(self) -> None:
        self._field.value = self._look.text
        self._field.display = True
        self._field.focus()

    def action_help(self) -> None:
        self.push_screen(Help())

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.display:
            self._look_at(replace(self._look, text=event.value))

    def on_input_submitted(self) -> None:
        self._end_typing()

    def _end_typing(self) -> None:
        self._field.display = False
        self._table.focus()

    def on_data_table_row_selected(self) -> None:
        if self._chosen is not None:
            self._look_at(self._look.into(self._chosen))


def main(fd: int, form: TopForm) -> None:
    """Shows what comes until the recording ends or somebody quits; nothing if nothing comes."""
    # Nothing here has a colour, and Textual 8 answers the wish for none with black on black.
    os.environ.pop("NO_COLOR", None)
    with ExitStack() as resources:
        slices = follow_slices(fd, form.interval_ns)
        first = next(slices, None)
        if first is not None:
            summer = Summer(open_database((), resources))
            requests = form.requests_fd and Outgoing(socket(fileno=form.requests_fd))
            screen = Top(summer, form, chain([first], slices), requests or None)
            screen.run(mouse=False)
            if screen.failure is not None:
                raise screen.failure
            sys.exit(screen.return_code or 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), parse_object(TopForm, json.loads(sys.argv[2])))
