# SPDX-License-Identifier: GPL-2.0-only
"""Turns finished spools into captures while a recording goes on, one at a time."""

import re
import subprocess
import sys
import threading
from pathlib import Path

from analyze.capture_name import CaptureName
from iorec.store.folder import Folder


class Conversions:
    """A queue of spools, worked off by a process for each; their order is that of `add`."""

    def __init__(self, *, is_forced: bool) -> None:
        self._options = ["--force"] if is_forced else []
        self._lock = threading.Lock()
        self._waiting: dict[CaptureName, Folder] = {}
        self._running: CaptureName | None = None
        self._failed: dict[CaptureName, tuple[Folder, str]] = {}
        self._worker: threading.Thread | None = None

    def add(self, folder: Folder, capture: CaptureName) -> None:
        """Converts the spool of the capture in `folder` when it is its turn."""
        with self._lock:
            self._waiting[capture] = folder
            if self._worker is None:
                # A daemon: whoever aborts the recording does not wait for the rest of the queue.
                self._worker = threading.Thread(target=self._work, daemon=True)
                self._worker.start()

    def forget(self, capture: CaptureName) -> bool:
        """Takes a capture out of the account, converted or not; False while it is converted."""
        with self._lock:
            if capture == self._running:
                return False
            self._waiting.pop(capture, None)
            self._failed.pop(capture, None)
            return True

    def wait(self) -> None:
        """Returns when nothing is waiting any more."""
        while (worker := self._worker) is not None:
            worker.join()

    def failures(self) -> dict[Path, str]:
        """The spools that are there and could not be converted, and why."""
        return {
            folder.path / capture.spool: cause
            for capture, (folder, cause) in self._failed.items()
            if folder.exists(capture.spool)
        }

    def _work(self) -> None:
        while (job := self._next()) is not None:
            capture, folder = job
            cause = self._convert(folder, capture.spool)
            with self._lock:
                if cause is not None:
                    self._failed[capture] = folder, cause

    def _next(self) -> tuple[CaptureName, Folder] | None:
        with self._lock:
            self._running = next(iter(self._waiting), None)
            if self._running is None:
                self._worker = None
                return None
            return self._running, self._waiting.pop(self._running)

    def _convert(self, folder: Folder, spool: str) -> str | None:
        """Makes a capture of a spool; returns None, or why that failed."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "iorec", "recover", *self._options, "--", spool],
                cwd=folder.descriptor_path,
                start_new_session=True,  # a terminal's Ctrl-C is for the recording alone
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            return str(error)
        if done.returncode == 0:
            return None
        said = re.search(r"^error: (.*)$", done.stderr, re.MULTILINE)
        return said[1] if said else f"iorec recover ended with {done.returncode}"
