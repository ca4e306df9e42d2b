# SPDX-License-Identifier: GPL-2.0-only
"""Runs `iorec record` on the targets beside a replay, as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from analyze.errors import IorecError
from iorec.host.signals import SignalWaiter
from iorec.replay.target import Target

# It records until this command ends, which it does when the pipe is closed that is its input: by
# the replay, however that ends.
_LIFELINE = ("--", "cat")
_PATIENCE_S = 120


class Witness:
    """The recorder; a context manager, which ends it."""

    def __init__(self, targets: Sequence[Target], output: Path, *, is_forced: bool) -> None:
        """Starts it, with the privileges that this process has now."""
        has_bios = not all(target.has_requests for target in targets)
        layers = "request,bio" if has_bios else "request"
        devices = [word for target in targets for word in ("-d", target.name)]
        command = [sys.executable, "-P", "-m", "iorec", "record", "-o", str(output), "-l", layers]
        self._process = subprocess.Popen(
            [*command, *devices, *(["-f"] * is_forced), *_LIFELINE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the replay
        )
        self._said = b""

    def __enter__(self) -> "Witness":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for stream in (self._process.stderr, self._process.stdin):
            if stream is not None:
                stream.close()

    def wait_until_recording(self, signals: SignalWaiter) -> None:
        """Returns when every I/O is seen; IorecError with the recorder's own words if none is."""
        while b"\nrecording " not in b"\n" + self._said:
            signals.wait_for(self._fd)
            part = os.read(self._fd, 1 << 16)
            if not part:
                raise self._explained("the recorder ended before the replay began")
            self._said += part

    def end(self) -> None:
        """Ends the recording and waits until its capture is written."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            while part := os.read(self._fd, 1 << 16):
                self._said += part
            self._process.wait(_PATIENCE_S)

    def check(self) -> list[str]:
        """What it has warned of; IorecError if there is no whole capture."""
        if self._process.returncode < 0:
            raise IorecError(
                f"the recorder was killed by signal {-self._process.returncode}",
                "the verdict is what the loop itself saw; iorec recover brings back what there is",
            )
        if self._process.returncode:
            raise self._explained("the recorder failed")
        return [line for line in self._lines() if line.startswith("warning: ")]

    @property
    def _fd(self) -> int:
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    def _lines(self) -> list[str]:
        return self._said.decode(errors="backslashreplace").splitlines()

    def _explained(self, otherwise: str) -> IorecError:
        lines = self._lines()
        said = {
            word: line.removeprefix(f"{word}: ")
            for word in ("error", "hint")
            for line in lines
            if line.startswith(f"{word}: ")
        }
        message = said.get("error") or f"{otherwise}: {' '.join(lines[-1:]) or 'it said nothing'}"
        return IorecError(
            f"cannot record the replay: {message}",
            f"{said.get('hint', 'see iorec doctor')}, or replay without a recorder: --no-record",
        )
