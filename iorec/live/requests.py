# SPDX-License-Identifier: GPL-2.0-only
"""Carries requests from a viewer to its recorder, and answers back."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass

from analyze.typed_json import dump_object, parse_object

_REQUEST = b"r"
_MOST_BYTES = 4096
_MOST_TEXT = 500  # characters, each of up to six bytes as JSON


@dataclass(frozen=True)
class Answer:
    """What became of a request, and whether a capture is being written now."""

    text: str
    is_recording: bool


class Incoming:
    """The end of the recorder; nothing waits, and a viewer that has ended asks for nothing."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)

    def take(self) -> bool:
        """Whether there was a request since the last time."""
        is_asked = False
        with suppress(OSError):  # there is no more
            while self._channel.recv(_MOST_BYTES):
                is_asked = True
        return is_asked

    def answer(self, text: str, *, is_recording: bool) -> None:
        """Says what became of one; nothing if nobody listens."""
        with suppress(OSError):
            self._channel.send(dump_object(Answer(text[:_MOST_TEXT], is_recording)))


class Outgoing:
    """The end of the viewer."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ask(self) -> None:
        """Asks to begin a capture, or to end the one that is being written."""
        self._channel.send(_REQUEST)

    def wait(self) -> Answer | None:
        """The next answer; None when the recorder has ended."""
        message = self._channel.recv(_MOST_BYTES)
        return parse_object(Answer, json.loads(message)) if message else None


def request_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel that keeps messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
