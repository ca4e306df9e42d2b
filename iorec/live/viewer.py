# SPDX-License-Identifier: GPL-2.0-only
"""Runs a viewer: a process that shows what is recorded and may be as slow as its terminal."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from analyze.metadata import Metadata, parse_metadata
from analyze.typed_json import dump_object
from iorec.host.signals import STOP_SIGNALS
from iorec.store.read_spool import FrameReader

_PATIENCE_S = 2.0


class Viewer:
    """The process, from the recorder's side; a context manager that waits a moment for its end."""

    def __init__(self, module: str, options: Any) -> None:
        """Starts it; `options` is a dataclass that `module` reads from its command line."""
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
                    pass_fds=[theirs.fileno()],
                )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """Has it end when it has shown what it got, and returns its exit status; 0 if it hangs."""
        self.channel.close()
        try:
            return self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:  # nobody reads what it writes
            self._process.kill()
            self._process.wait()
            return 0


def follow(fd: int) -> Iterator[tuple[pa.RecordBatch, Metadata]]:
    """The batches of a Feed as they come, each with the account of all until then."""
    with socket.socket(fileno=fd) as channel, channel.makefile("rb") as file:
        try:
            reader = FrameReader(file)
            while True:
                batch, described = reader.read()
                yield batch, parse_metadata(described, "what is recorded")
        except (EOFError, ConnectionResetError):
            return


def end_quietly() -> None:
    """Ends the viewer when nobody reads what it writes any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
