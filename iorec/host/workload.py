# SPDX-License-Identifier: GPL-2.0-only
"""Runs the command that is recorded, from before its exec until it ends."""

import contextlib
import os
import pwd
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.errors import IorecError
from iorec.host.signals import STOP_SIGNALS, SignalWaiter

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as shells, env and timeout have it
_NO_ID = 2**32 - 1  # means `as it is` to the kernel


@dataclass(frozen=True)
class User:
    """The user behind sudo."""

    uid: int
    gid: int


def invoking_user() -> User | None:
    """Who called sudo; None if nobody did."""
    try:
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None
    is_user = 0 < uid < _NO_ID and 0 <= gid < _NO_ID
    return User(uid, gid) if is_user and os.geteuid() == 0 else None


def become(user: User) -> None:
    """Gives this process to `user`, with all groups; some, as in containers, have no name."""
    try:
        os.initgroups(pwd.getpwuid(user.uid).pw_name, user.gid)
    except KeyError:
        os.setgroups([user.gid])
    os.setgid(user.gid)
    os.setuid(user.uid)


class Workload:
    """A forked process that waits for `start` and then becomes the command."""

    def __init__(self, argv: Sequence[str], user: User | None) -> None:
        """Forks; call it before any thread is started."""
        _check_command(argv[0])
        self._status: int | None = None
        reader, self._gate = os.pipe()
        # What the handlers of this process do must not happen in the other one, too.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(argv, user, reader)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.close(reader)

    def start(self) -> None:
        """Starts the command, unless a signal has ended it already."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"\0")
        os.close(self._gate)
        self._gate = -1

    def poll(self) -> int | None:
        """The exit status once it has ended, 128 + N for signal N; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = _exit_status(status) if pid else None
        return self._status

    def end(self, signals: SignalWaiter) -> int | None:
        """Waits for the end and returns the exit status.

        Whoever interrupts the recording also wants the command to end; its status is then None. One
        that does not is killed, and no longer waited for, at the next stop signal.
        """
        signals.wait(0.0)  # a Ctrl-C ends the command too, whose end may be seen first
        is_interrupted = signals.asks_to_stop
        remedies = [signal.SIGTERM, signal.SIGKILL]
        while self.poll() is None and remedies:
            if signals.asks_to_stop:
                is_interrupted, signals.asks_to_stop = True, False
                with contextlib.suppress(PermissionError):  # it is another user's by now
                    os.kill(self.pid, remedies.pop(0))
            else:
                signals.wait(None)
        return None if is_interrupted else self._status

    def cancel(self) -> None:
        """Ends a process that was never started."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
            os.waitpid(self.pid, 0)


def _check_command(name: str) -> None:
    """Raises IorecError, with the exit code that shells have for it, if there is none to run."""
    if shutil.which(name) is not None:
        return
    if shutil.which(name, os.F_OK) is None and not Path(name).is_dir():
        raise IorecError(
            f"cannot run {name}: command not found",
            "give the command as you would type it in a shell, or its full path",
            _NOT_FOUND,
        )
    raise IorecError(
        f"cannot run {name}: it is not executable",
        "name its interpreter, such as sh or python3, or make it executable with chmod +x",
        _NOT_EXECUTABLE,
    )


def _become(argv: Sequence[str], user: User | None, gate: int) -> None:
    status = _NOT_EXECUTABLE
    try:
        signal.set_wakeup_fd(-1)
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if not os.read(gate, 1):
            os._exit(0)
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        if user is not None:
            become(user)
        os.execvpe(argv[0], list(argv), os.environ)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            status = _NOT_FOUND
        message = f"error: cannot run {argv[0]}: {error.strerror}\n"
        os.write(2, message.encode(errors="backslashreplace"))
    finally:
        os._exit(status)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
