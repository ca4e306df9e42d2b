# SPDX-License-Identifier: GPL-2.0-only
"""Runs a viewer: a process that shows what is recorded and may be as slow as its terminal."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from analyze.metadata import Metadata, parse_metadata
from analyze.typed_json import dump_object
from iorec.host.advice import advice
from iorec.host.processes import await_end
from iorec.host.signals import STOP_SIGNALS
from iorec.store.read_spool import FrameReader

_PATIENCE_S = 2.0


class Viewer:
    """The process, from the recorder's side; a context manager that waits a moment for its end."""

    def __init__(self, module: str, options: Any, fds: tuple[int, ...] = ()) -> None:
        """Starts it, with `fds` open.

        `options` is a dataclass that `module` reads from its command line.
        """
        self.channel, theirs = socket.socketpair()
        # It ends with the recording: signals to stop are for the recorder.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        module,
                        str(theirs.fileno()),
                        dump_object(options),
                    ],
                    pass_fds=[theirs.fileno(), *fds],
                )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """Has it end when it has shown what it got, and returns its exit status; 0 if it hangs.

        On a busy machine it takes its time, but what waits for its reader does nothing.
        """
        self.channel.close()
        try:
            return await_end(self._process, _PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0


def follow(fd: int) -> "Followed":
    """In the viewer: what a Feed sends."""
    return Followed(socket.socket(fileno=fd))


class Followed:
    """The batches of a Feed as they come, each with the account until then."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._reader: FrameReader | None = None

    def __iter__(self) -> "Followed":
        return self

    def __next__(self) -> tuple[pa.RecordBatch, Metadata]:
        try:
            if self._reader is None:
                self._reader = FrameReader(self)
            batch, described = self._reader.read()
        except (EOFError, ConnectionResetError):
            raise StopIteration from None
        return batch, parse_metadata(described, "what is recorded")

    def read(self, size: int, /) -> bytes:
        """So many bytes, or those up to the end."""
        return self._channel.recv(size, socket.MSG_WAITALL)

    @property
    def has_more(self) -> bool:
        """Whether the next batch is on its way already."""
        return bool(select.select([self._channel], [], [], 0.0)[0])


@contextmanager
def printing() -> Iterator[None]:
    """Ends the viewer when nobody reads what it prints any more, or there is no room for it."""
    try:
        yield
    except OSError as error:
        # Python flushes again when it exits, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(0)
        print(f"error: cannot write to stdout: {error.strerror}", file=sys.stderr)
        print(f"hint: {advice(str(error))}", file=sys.stderr)
        sys.exit(1)
