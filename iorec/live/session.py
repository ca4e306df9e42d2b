# SPDX-License-Identifier: GPL-2.0-only
"""Records for a viewer, and into a capture as well if that is asked for."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

from analyze.errors import IorecError
from iorec.host.signals import SignalWaiter
from iorec.host.workload import invoking_user
from iorec.live.requests import Incoming
from iorec.record.output import open_output
from iorec.record.progress import Progress
from iorec.record.session import prepare
from iorec.record.settings import Settings
from iorec.store.folder import Folder

if TYPE_CHECKING:
    from analyze.metadata import Metadata
    from iorec.store.origin import Origin
    from iorec.store.result import Result


@dataclass(frozen=True)
class View:
    """What shows the I/Os: a module that runs as a Viewer, its options, how often it wants them.

    It gets the files that `fds` are, and asks for captures of the current folder by `requests`.
    """

    module: str
    options: Any
    period_s: float
    fds: tuple[int, ...] = ()
    requests: socket | None = None
    is_screen: bool = False  # all of it: nothing else may print meanwhile


@dataclass(frozen=True)
class Ended:
    """How a live recording ended: with what metadata, which captures, and the viewer's status.

    `result` is the capture of the output, if there is one; `captures` were asked for meanwhile, and
    `failure` is what went wrong with these.
    """

    metadata: "Metadata | None"
    result: "Result | None"
    viewer_status: int
    captures: tuple[Path, ...] = ()
    failure: IorecError | None = None


def live_session(
    view: View, settings: Settings, progress: Progress, announce: Callable[[bool], None]
) -> Ended:
    """Record for a viewer until it ends, or for any reason for which `iorec record` does.

    Into the output of the settings, too, if there is one. Raises IorecError as record_session does.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(SignalWaiter())
        user, capture = invoking_user(), settings.output
        output = capture and stack.enter_context(open_output(capture, settings, user))
        folder = stack.enter_context(Folder.open(Path(), user)) if view.requests else None
        prepared = stack.enter_context(prepare(settings, signals, progress, announce))
        # Only now: numpy and Arrow start threads, and each keeps the privileges it starts with.
        from iorec.live.feed import Feed
        from iorec.live.viewer import Viewer
        from iorec.record.on_request import OnRequest
        from iorec.record.recording import record_and_convert, run_recorder

        viewer = stack.enter_context(Viewer(view.module, view.options, view.fds))

        def feed(origin: "Origin") -> Feed:
            return Feed(viewer.channel, origin, view.period_s)

        if output:
            result = record_and_convert(prepared, output, feed)
            return Ended(result.metadata, result, viewer.end())
        asked = None
        if view.requests is not None and folder is not None:
            asked = OnRequest(prepared, folder, Incoming(view.requests))
        with progress:
            recorded = run_recorder(prepared, feed, make_beside=asked.begin if asked else None)
        if recorded.failure is not None:
            raise recorded.failure
        ended = Ended(recorded.last and recorded.last[1], None, viewer.end())
        if asked is None:
            return ended
        failure = asked.wait()
        return replace(ended, captures=asked.captures, failure=failure)
