# SPDX-License-Identifier: GPL-2.0-only
"""Records for a viewer, and into a capture as well if that is asked for."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iorec.host.signals import SignalWaiter
from iorec.host.workload import invoking_user
from iorec.record.output import open_output
from iorec.record.progress import Progress
from iorec.record.session import prepare
from iorec.record.settings import Settings

if TYPE_CHECKING:
    from analyze.metadata import Metadata
    from iorec.store.origin import Origin
    from iorec.store.result import Result


@dataclass(frozen=True)
class View:
    """What shows the I/Os: a module that runs as a Viewer, its options, how often it wants them.

    It gets the files that `fds` are.
    """

    module: str
    options: Any
    period_s: float
    fds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a live recording ended: with what metadata, which capture, and the viewer's status."""

    metadata: "Metadata | None"
    result: "Result | None"
    viewer_status: int


def live_session(
    view: View, settings: Settings, progress: Progress, announce: Callable[[bool], None]
) -> Ended:
    """Record for a viewer until it ends, or for any reason for which `iorec record` does.

    Into the output of the settings, too, if there is one. Raises IorecError as record_session does.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        capture = settings.output
        output = capture and stack.enter_context(open_output(capture, settings, invoking_user()))
        prepared = stack.enter_context(prepare(settings, signals, progress, announce))
        # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
        from iorec.live.feed import Feed
        from iorec.live.viewer import Viewer
        from iorec.record.recording import record_and_convert, run_recorder

        viewer = stack.enter_context(Viewer(view.module, view.options, view.fds))

        def feed(origin: "Origin") -> Feed:
            return Feed(viewer.channel, origin, view.period_s)

        if output:
            result = record_and_convert(prepared, output, feed)
            return Ended(result.metadata, result, viewer.end())
        with progress:
            recorded = run_recorder(prepared, feed)
        if recorded.failure is not None:
            raise recorded.failure
        return Ended(recorded.last and recorded.last[1], None, viewer.end())
