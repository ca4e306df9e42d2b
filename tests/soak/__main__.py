# SPDX-License-Identifier: GPL-2.0-only
"""Records for an hour while everything comes and goes, and checks each row against the truth.

    SOAK_S=3600 SOAK_SEED=1 python -m tests.soak

Exits with 1 if a row names what is wrong, a capture does not open, or an account does not close.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.kernel.conftest import TMPFS, cgroup_root
from tests.soak.disks import Crowd, LoopDevice, ZramDevice, hide_mounts
from tests.soak.names import component, deep_folder
from tests.soak.recordings import Recording
from tests.soak.tally import Tally
from tests.truth.claims import Workers
from tests.truth.disk import Disk, escaped

_LOOP_NUMBERS = (240, 500)  # far from those that losetup -f takes
_RECORDERS = 2
_MOST_FILES, _FEW_FILES = 20_000, 300
_MIB = 1 << 20
_CGROUPS = 20
_TICK_S = 0.1
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_STOP_S = 12


class Soak:
    """The stage and its actors; a context manager that leaves nothing behind."""

    def __init__(self, duration_s: float, seed: int) -> None:
        self._dice = random.Random(seed)
        self._duration_s = duration_s
        self._end_s = 0.0
        self._number = 0  # of the newest thing that needs one
        self._pool = 0
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._recordings: list[Recording] = []
        self._cgroups: list[Path] = []
        self._names: list[set[str]] = []  # of the cgroups

    def __enter__(self) -> "Soak":
        with ExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(dir=TMPFS, prefix="iorec-soak-"))
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            workers = stack.enter_context(Workers(self._folder))
            stack.callback(self._remove_cgroups)
            self._make_cgroups()
            devices = [LoopDevice(self._folder, number) for number in _LOOP_NUMBERS]
            self._crowds = [
                Crowd(device, workers, self._dice) for device in (*devices, ZramDevice())
            ]
            for crowd in self._crowds:
                stack.callback(crowd.go)
            stack.callback(self._abort_recordings)
            self._tally = Tally(workers, self._names, self._crowds[0].device.name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for number in _ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        self._stack.close()

    @property
    def _disks(self) -> list[Disk]:
        return [disk for crowd in self._crowds for disk in crowd.disks]

    def run(self) -> bool:
        """Acts until the time is over, or Ctrl-C, and says what was found; whether all is right."""
        try:
            self._come(self._crowds[0], min(_MOST_FILES, int(300 * self._duration_s)), 768 * _MIB)
            for crowd in self._crowds[1:]:
                self._come(crowd, _FEW_FILES, 64 * _MIB)
            self._end_s = time.monotonic() + self._duration_s
            while time.monotonic() < self._end_s:
                self._act()
                time.sleep(_TICK_S)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        for recording in list(self._recordings):
            self._end(recording)
        print(self._tally.format(self._disks))
        return self._tally.is_right

    def _act(self) -> None:
        for due in [entry for entry in self._later if entry[0] < time.monotonic()]:
            self._later.remove(due)
            due[1]()
        for recording in [recording for recording in self._recordings if recording.is_over]:
            self._end(recording)
        while len(self._recordings) < _RECORDERS:
            self._start_recording()
        dice = self._dice
        actions: list[tuple[float, Callable[[], object]]] = [
            (0.01, lambda: self._replace(dice.choice(self._crowds[1:]))),
            (0.02, lambda: self._stop_for_a_while(dice.choice(self._recordings))),
            (0.02, lambda: dice.choice(self._recordings).kill_a_child(dice)),
            (0.20, lambda: dice.choice(self._crowds).rename_a_file(self._next_number())),
            (0.05, lambda: self._remove_cgroup(dice.randrange(_CGROUPS))),
            (0.02, lambda: dice.choice(self._crowds[1:]).switch_statistics()),
        ]
        for often, act in actions:
            if dice.random() < often:
                act()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _start_recording(self) -> None:
        lasts_s = self._dice.uniform(3, max(6, min(60, self._duration_s / 4)))
        folder = self._folder / f"recording-{self._next_number()}"
        device = self._crowds[0].device.name
        self._recordings.append(Recording(folder, self._dice, device, lasts_s))

    def _end(self, recording: Recording) -> None:
        self._recordings.remove(recording)
        captures = recording.end()
        before = self._tally.rows
        for capture in captures:
            self._tally.add(capture, self._disks)
        self._tally.refused += recording.refused
        if recording.troubles:
            self._tally.troubles.append(recording.describe_troubles())
        shutil.rmtree(recording.folder)
        rows = self._tally.rows - before
        print(f"{recording.title}: {len(captures)} captures, {rows:,} rows, "
              f"{self._tally.verdict.wrong} wrong, {len(self._tally.troubles)} troubles so far",
              file=sys.stderr)  # fmt: skip

    def _abort_recordings(self) -> None:
        for recording in self._recordings:
            recording.abort()

    def _stop_for_a_while(self, recording: Recording) -> None:
        recording.stop()
        pause_s = self._dice.uniform(0.5, min(_LONGEST_STOP_S, self._duration_s / 5))
        recording.end_s += pause_s
        self._later.append((time.monotonic() + pause_s, recording.resume))

    def _come(self, crowd: Crowd, count: int, size_bytes: int) -> None:
        self._pool = crowd.come(count, size_bytes, self._pool, self._cgroups)

    def _replace(self, crowd: Crowd) -> None:
        crowd.go()
        count = self._dice.randint(_FEW_FILES // 2, 2 * _FEW_FILES)
        self._come(crowd, count, self._dice.randint(48, 96) * _MIB)

    def _make_cgroups(self) -> None:
        self._cgroup_root = cgroup_root()
        self._top = self._cgroup_root / f"iorec-soak-{os.getpid()}"
        self._top.mkdir()
        self._cgroups.append(deep_folder(self._dice, self._top))
        while len(self._cgroups) < _CGROUPS:
            self._cgroups.append(self._top / component(self._dice, len(self._cgroups)))
            self._cgroups[-1].mkdir()
        self._names += [self._names_of(folder) for folder in self._cgroups]

    def _names_of(self, folder: Path) -> set[str]:
        path = escaped(os.fsencode(folder.relative_to(self._cgroup_root)))
        return {f"/{path}", f"id:{folder.stat().st_ino}"}

    def _remove_cgroup(self, number: int) -> None:
        """Removes a cgroup that is empty in this moment; it comes back with another id."""

        def come_back() -> None:
            folder.mkdir()
            self._names[number] |= self._names_of(folder)

        folder = self._cgroups[number]
        with suppress(OSError):
            folder.rmdir()
            self._later.append((time.monotonic() + self._dice.uniform(0, 2), come_back))

    def _remove_cgroups(self) -> None:
        for folder, _, _ in os.walk(self._top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def main() -> int:
    duration_s = float(os.environ.get("SOAK_S", "3600"))
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"soak of {duration_s:.0f} s, SOAK_SEED={seed}", file=sys.stderr)
    for number in _ENDINGS:
        signal.signal(number, signal.default_int_handler)
    hide_mounts()
    with Soak(duration_s, seed) as soak:
        return 0 if soak.run() else 1


if __name__ == "__main__":
    sys.exit(main())
