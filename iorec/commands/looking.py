# SPDX-License-Identifier: GPL-2.0-only
"""What the commands that show I/Os while they happen do alike."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from signal import Signals
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from iorec.live.session import View
    from iorec.record.settings import Settings


def look_on(
    view: "View",
    settings: "Settings",
    *,
    says: Sequence[str] = (),
    around: AbstractContextManager[None] | None = None,
) -> NoReturn:
    """Records for a viewer, `around` which a context is, and exits with what that ended with.

    Says how the recording begins, with some lines more, and how it has ended.
    """
    from analyze.errors import IorecError
    from iorec.live.session import live_session
    from iorec.messages import format_start, say
    from iorec.status import StatusLine

    def announce(has_trace: bool) -> None:
        for line in (format_start(settings, has_trace=has_trace), *says):
            say(line, is_quiet=settings.is_quiet)

    filters = None if view.is_screen else settings.filters
    progress = StatusLine(settings.limits, filters, is_quiet=True)
    with around or nullcontext():
        ended = live_session(view, settings, progress, announce)
    # Only now: it starts threads.
    from iorec.outcome import say_end, say_live_end

    if ended.result is not None:
        say_end(ended.result, is_quiet=settings.is_quiet)
    else:
        say_live_end(ended.metadata, is_quiet=settings.is_quiet)
    if ended.captures:
        say("\n".join(map(str, ended.captures)), is_quiet=settings.is_quiet)
    if ended.failure is not None:
        raise ended.failure
    if ended.viewer_status < 0:
        raise IorecError(
            f"the process that shows the I/Os was ended by {Signals(-ended.viewer_status).name}",
            "whoever did that may have said so: the kernel, of a lack of memory, in dmesg",
        )
    raise typer.Exit(1 if ended.viewer_status else 0)
