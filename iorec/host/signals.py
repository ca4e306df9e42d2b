# SPDX-License-Identifier: GPL-2.0-only
"""Waits for signals without acting on them in the middle of anything."""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class SignalWaiter:
    """Collects stop signals, SIGCHLD and SIGUSR1; a context manager that restores the handlers.

    The numbers of arrived signals are read from a pipe: unlike a mask, that also works for signals
    which the kernel delivers to a thread of a library. Something else may end the waiting, too.
    """

    def __init__(self) -> None:
        self.asks_to_stop = False  # whether a stop signal has arrived
        self._has_request = False

    def __enter__(self) -> "SignalWaiter":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._epoll = select.epoll()
        self._epoll.register(self._reader, select.EPOLLIN)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        numbers = {*STOP_SIGNALS, signal.SIGCHLD, signal.SIGUSR1}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
            numbers.remove(signal.SIGHUP)
        self._before = {number: signal.signal(number, _do_nothing) for number in numbers}
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._epoll.close()
        os.close(self._reader)
        os.close(self._writer)

    def watch(self, fd: int) -> None:
        """Makes wait() return whenever somebody who sleeps on `fd` is woken."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def check(self) -> None:
        """Raises KeyboardInterrupt if a stop signal has arrived: here is a good place to end."""
        self.wait(0.0)
        if self.asks_to_stop:
            raise KeyboardInterrupt

    def wait_for(self, fd: int) -> None:
        """Waits until `fd` can be read, or raises KeyboardInterrupt for a stop signal before."""
        self._epoll.register(fd, select.EPOLLIN)
        while fd not in self._poll(None):
            self.check()
        self._epoll.unregister(fd)

    def take_request(self) -> bool:
        """Whether SIGUSR1 has arrived since the last time."""
        has_request, self._has_request = self._has_request, False
        return has_request

    def wait(self, timeout_s: float | None) -> bool:
        """Waits for a signal, with None as long as it takes.

        Returns whether anything ended the waiting before the time was over.
        """
        return bool(self._poll(timeout_s))

    def _poll(self, timeout_s: float | None) -> list[int]:
        ready = [fd for fd, _ in self._epoll.poll(timeout_s)]
        if self._reader in ready:
            numbers = os.read(self._reader, 4096)
            self.asks_to_stop |= any(number in STOP_SIGNALS for number in numbers)
            self._has_request |= signal.SIGUSR1 in numbers
        return ready


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt, so that what was begun is cleaned up."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    """Calls `interrupt` at Ctrl-C from another thread, as this one may wait inside of a library.

    DuckDB looks for signals only between two tasks of the main thread: where another thread has the
    last task, a query would run to its end.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wait() -> None:
        while os.read(reader, 1):
            interrupt()

    waiting = threading.Thread(target=wait)
    waiting.start()
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        os.close(writer)
        waiting.join()
        os.close(reader)


def _do_nothing(_: int, __: FrameType | None) -> None:
    pass
