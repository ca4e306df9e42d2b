# SPDX-License-Identifier: GPL-2.0-only
"""Recorders that are started, stopped, continued and killed, and the captures that they leave."""

import fcntl
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from iorec.host.processes import await_end, cpu_s
from tests.kernel.conftest import IOREC

_PATIENCE_S = 120
_LAYERS = ("request", "bio", "request,bio")
_BUFFERS = ("256K", "1M", "16M", "16M")
_ROTATING = ("--max-size", "1M", "--rotate", "100000")
# Beside other work on the machine, checking one may take longer than it was to last.
_BOUNDED = ("--max-size", "32M")
_FULL_BYTES = 8 << 20  # of a capture, at the least: its spool is larger


class Recording:
    """One `iorec record` with a folder of its own."""

    def __init__(self, folder: Path, dice: random.Random, device: str, lasts_s: float) -> None:
        self.folder = folder
        self.troubles: list[str] = []
        self.refused = 0  # spools that could not become a capture
        self.end_s = time.monotonic() + lasts_s
        self._is_killed = dice.random() < 0.3
        folder.mkdir()
        options = ["-l", dice.choice(_LAYERS), "-B", dice.choice(_BUFFERS)]
        options += _ROTATING if dice.random() < 0.4 else _BOUNDED
        if dice.random() < 0.2:
            options += ["-d", device]
        self.title = " ".join(options) + (" (killed)" if self._is_killed else "")
        command = [str(IOREC), "record", "-o", str(folder / "run.parquet"), *options]
        with (folder / "stderr").open("wb") as stderr:
            # Ctrl-C is for the soak, which ends its recorders itself.
            self._process = subprocess.Popen(
                command,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # see _await_end
            )
        deadline = time.monotonic() + _PATIENCE_S
        while b"\nrecording " not in b"\n" + self._said() and self._process.poll() is None:
            assert time.monotonic() < deadline, "a recorder does not start"
            time.sleep(0.01)

    @property
    def is_over(self) -> bool:
        """Whether its time is over, or it ended by itself."""
        return time.monotonic() > self.end_s or self._process.poll() is not None

    def stop(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def kill_a_child(self, dice: random.Random) -> None:
        """Kills one of its processes; not those that finish a capture."""
        children = []
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            with suppress(OSError):
                children += [int(pid) for pid in path.read_text().split()]
        children = [pid for pid in children if (argv := _argv(pid)) and b"recover" not in argv]
        if children:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(children), signal.SIGKILL)

    def end(self) -> list[Path]:
        """Ends it, has recovered what it left, and returns its captures."""
        is_full = self._process.poll() == 0  # it has recorded as much as it was to
        self.resume()
        self._send(signal.SIGKILL if self._is_killed else signal.SIGINT)
        status = self._await_end()
        if is_full:
            size = sum(path.stat().st_size for path in self.folder.glob("*.parquet"))
            if size < _FULL_BYTES:
                self.troubles.append(f"ended by itself with {size} bytes")
        elif status != (-signal.SIGKILL if self._is_killed else 0):
            self.troubles.append(f"ended with {status}")
        parts = sorted(self.folder.glob("*.part"))
        if parts and not self._is_killed:
            self.troubles.append(f"left {len(parts)} spools")
        for part in parts:
            self._recover(part)
        return sorted(self.folder.glob("*.parquet"))

    def describe_troubles(self) -> str:
        said = self._said().decode(errors="backslashreplace").strip()
        return f"{self.title}: {'; '.join(self.troubles)}\n  it said: {said}"

    def abort(self) -> None:
        """Kills it, and those that finish its captures."""
        self._send(signal.SIGKILL)
        self._process.wait()

    def _recover(self, part: Path) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while _is_locked(part) and time.monotonic() < deadline:  # by one that finishes it
            time.sleep(0.05)
        if not part.exists() or not part.stat().st_size:  # of a rotation that was just begun
            return
        done = subprocess.run([IOREC, "recover", part], stderr=subprocess.PIPE, text=True)
        # One that was still being finished is a capture by now.
        is_capture = part.with_suffix("").exists() and not part.exists()
        if done.returncode and not is_capture:
            self.refused += 1
            self.troubles.append(f"{part.name} is refused: {done.stderr.strip()}")

    def _await_end(self) -> int:
        """The exit status; of one that hangs, without working, all threads say where they are."""
        try:
            return await_end(self._process, _PATIENCE_S, least_s=1.0)
        except subprocess.TimeoutExpired:
            self.troubles.append(f"hangs, after {cpu_s(self._process.pid):.1f} s of CPU")
            self._send(signal.SIGABRT)
            return self._process.wait(_PATIENCE_S)

    def _send(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _said(self) -> bytes:
        return (self.folder / "stderr").read_bytes()


def _argv(pid: int) -> Sequence[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return ()


def _is_locked(part: Path) -> bool:
    with suppress(FileNotFoundError), part.open("rb") as spool:
        try:
            fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
