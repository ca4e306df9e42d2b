# SPDX-License-Identifier: GPL-2.0-only
"""Asks another process for the paths of inodes, which takes a privilege."""

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from iorec.host.notes import Notes
from iorec.host.path_finder import FOUND, INODE, LARGEST_MESSAGE, NUMBER, REPLACE, Inode
from iorec.host.privileges import has_read_privilege

_PATIENCE_S = 0.2
_LAST_PATIENCE_S = 1.0  # when nothing else is to be done any more
_HANG_NS = 2_000_000_000  # without any answer, the process is replaced
_MOST_TRIES = 2  # so that what kills or hangs the process does so no more often
_MOST_IN_QUESTION = 64
_MOST_WAITING = 100_000

PART = "paths of files"
_ENDED = "the process that finds them ended, and was started again"
_HUNG = "the process that finds them did not answer, and was replaced"
_GONE = "the process that finds them is gone"
_NOT_PERMITTED = "not found, because iorec lacks CAP_DAC_READ_SEARCH"
_GIVEN_UP = "not looked up, because the process ended or hung twice"
_TOO_MANY = "not looked up, because there were too many at once"
_TOO_LATE = "not found before the recording ended"


@dataclass
class _Question:
    """What was asked at once, without what is answered."""

    asked_ns: int
    inodes: dict[Inode, int]  # and how often each was asked for


class FilePaths:
    """A process that keeps one privilege, to open files by inode; a context manager.

    Nobody waits long for it: a disk that hangs must not stop the recording. What it did not answer
    is asked again, and noted.
    """

    def __init__(self, notes: Notes | None = None) -> None:
        self.notes = notes or Notes()
        self._is_permitted = has_read_privilege()
        self._waiting: deque[tuple[Inode, int]] = deque()
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._progress_ns = 0
        self._gone_ns: int | None = None
        self._longest_patience_s = self._patience_s = _PATIENCE_S
        self._channel, their_channel = _pair()
        self._orders, their_orders = _pair()
        with their_channel, their_orders:
            fds = [their_channel.fileno(), their_orders.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "iorec.host.path_finder", *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the recorder
            )

    @property
    def pid(self) -> int:
        """Of the process that finds them, or starts the one which does."""
        return self._process.pid

    def __enter__(self) -> "FilePaths":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()  # which ends the process, unless a disk keeps it
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)

    def ask(self, inodes: list[Inode]) -> None:
        """Asks for some paths; of too many at once the oldest remain unknown."""
        if not self._is_permitted:
            self.notes.add(PART, _NOT_PERMITTED, count=len(inodes))
            return
        self._queue((inode, 1) for inode in inodes)
        self._send()

    def answers(self) -> Iterator[tuple[Inode, bytes | None]]:
        """What has been found meanwhile; None: the inode has no path."""
        end_s = time.monotonic() + self._patience_s
        while self._questions:
            timeout_s = max(end_s - time.monotonic(), 0.0)
            if not select.select([self._channel], [], [], timeout_s)[0]:
                self._patience_s = 0.0
                self._replace_if_it_hangs()
                break
            answer = self._receive()
            if not answer:
                break
            self._patience_s = self._longest_patience_s
            self._progress_ns = time.monotonic_ns()
            yield from self._found_in(answer)
            self._send()
        if self._gone_ns is not None:
            self.notes.add(PART, _GONE, self._gone_ns)

    def last_answers(self) -> Iterator[tuple[Inode, bytes | None]]:
        """The same with more patience, as what is not found now never will be: that is noted."""
        self._longest_patience_s = self._patience_s = _LAST_PATIENCE_S
        yield from self.answers()
        missing = len(self._waiting) + sum(len(asked.inodes) for asked in self._questions.values())
        if missing and self._gone_ns is None:
            self.notes.add(PART, _TOO_LATE, count=missing)

    def _queue(self, asked: Iterator[tuple[Inode, int]]) -> None:
        self._waiting.extend(asked)
        excess = len(self._waiting) - _MOST_WAITING
        for _ in range(excess):
            self._waiting.popleft()
        if excess > 0:
            self.notes.add(PART, _TOO_MANY, count=excess)

    def _send(self) -> None:
        """Sends what waits, as far as there is room."""
        while self._waiting:
            count = min(len(self._waiting), _MOST_IN_QUESTION)
            taken = [self._waiting.popleft() for _ in range(count)]
            message = NUMBER.pack(self._number) + b"".join(INODE.pack(*inode) for inode, _ in taken)
            try:
                self._channel.send(message)
            except BlockingIOError:
                self._waiting.extendleft(reversed(taken))
                return
            except OSError:
                self._waiting.clear()
                self._notice_end()
                return
            self._questions[self._number] = _Question(time.monotonic_ns(), dict(taken))
            self._number = (self._number + 1) & 0xFFFFFFFF

    def _receive(self) -> bytes:
        """An answer; empty if there will be no more."""
        try:
            answer = self._channel.recv(LARGEST_MESSAGE)
        except OSError:
            answer = b""
        if not answer:
            self._notice_end()
        return answer

    def _found_in(self, answer: bytes) -> Iterator[tuple[Inode, bytes | None]]:
        """Believes nothing: what was not asked for, or is cut off, is left out."""
        if len(answer) < NUMBER.size:
            return
        (number,) = NUMBER.unpack_from(answer)
        if number not in self._questions:
            return
        for earlier in list(self._questions):  # answered in their order, or never
            if earlier == number:
                break
            self._ask_again(self._questions.pop(earlier), _ENDED)
        inodes = self._questions[number].inodes
        place = NUMBER.size
        while place + FOUND.size <= len(answer):
            *inode, length = FOUND.unpack_from(answer, place)
            place += FOUND.size
            path = None if length < 0 else answer[place : place + length]
            place += max(length, 0)
            if place <= len(answer) and inodes.pop((inode[0], inode[1], inode[2]), 0):
                yield (inode[0], inode[1], inode[2]), path
        if not inodes:
            del self._questions[number]

    def _replace_if_it_hangs(self) -> None:
        oldest = next(iter(self._questions.values()))
        since_ns = max(oldest.asked_ns, self._progress_ns)
        if time.monotonic_ns() - since_ns < _HANG_NS:
            return
        with contextlib.suppress(OSError):
            self._orders.send(REPLACE)
        self._progress_ns = time.monotonic_ns()
        for number in list(self._questions):
            self._ask_again(self._questions.pop(number), _HUNG)
        self._send()

    def _ask_again(self, question: _Question, cause: str) -> None:
        self.notes.add(PART, cause, question.asked_ns)
        again = [(inode, tries + 1) for inode, tries in question.inodes.items()]
        left = [asked for asked in again if asked[1] <= _MOST_TRIES]
        self._queue(iter(left))
        if len(left) < len(again):
            self.notes.add(PART, _GIVEN_UP, question.asked_ns, count=len(again) - len(left))

    def _notice_end(self) -> None:
        if self._gone_ns is None:
            asked = [question.asked_ns for question in self._questions.values()]
            self._gone_ns = min([time.monotonic_ns(), *asked])
        self._questions.clear()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Ours, which never waits, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST_MESSAGE)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * LARGEST_MESSAGE)
    ours.setblocking(False)
    return ours, theirs
