# SPDX-License-Identifier: GPL-2.0-only
"""Processes that use files of their own, and what is known of each: whose files are whose, when."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_CGROUP = -1

# As tests/truth/worker.py writes it.
CLAIM = np.dtype(
    [
        ("from_ns", np.int64),
        ("pool", np.int32),
        ("pid", np.int32),
        ("tid", np.int32),
        ("cgroup", np.int32),
        ("comm", "S16"),
    ]
)


@dataclass
class Workers:
    """Starts workers, whose claims it keeps in a folder; a context manager that ends them."""

    folder: Path
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> "Workers":
        (self.folder / "claims").touch()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def start(self, jobs: Sequence[dict[str, Any]]) -> subprocess.Popen[bytes]:
        """One process with a thread for each job; returns when it has opened the files."""
        script = Path(__file__).with_name("worker.py")
        config = self.folder / f"jobs-{jobs[0]['pool']}-{jobs[0]['seed']}"
        config.write_text(json.dumps(jobs))
        command = [sys.executable, "-I", "-S", *map(str, (script, self.folder / "claims", config))]
        worker = subprocess.Popen(command, start_new_session=True)
        self._running.append(worker)
        while config.exists():
            assert worker.poll() is None, "a worker failed"
            time.sleep(0.001)
        return worker

    def stop(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        """Ends workers; those that had ended by themselves must have succeeded."""
        ended = [worker.poll() for worker in workers]
        for worker in workers:
            _kill_all(worker)
        self._running = [worker for worker in self._running if worker not in workers]
        assert not any(ended), "a worker failed"

    def stop_all(self) -> None:
        """Ends those that run."""
        self.stop(self._running)

    def claims(self) -> NDArray[np.void]:
        """All claims so far."""
        return np.fromfile(self.folder / "claims", CLAIM)


def _kill_all(worker: subprocess.Popen[bytes]) -> None:
    """Kills a worker and the processes that it has started; returns when all are gone."""
    deadline = time.monotonic() + 10
    while True:
        try:
            os.killpg(worker.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        worker.wait()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def reading(
    paths: Sequence[Path], pool: int, seed: int, pauses_s: Sequence[float]
) -> dict[str, Any]:
    """The job of a thread that reads the files of a pool."""
    return _job("read", paths, pool, seed, pauses_s)


def writing(
    paths: Sequence[Path], pool: int, seed: int, pauses_s: Sequence[float]
) -> dict[str, Any]:
    """The job of a thread that overwrites the files of a pool."""
    return _job("write", paths, pool, seed, pauses_s)


def spawning(
    paths: Sequence[Path],
    first_pool: int,
    seed: int,
    pauses_s: Sequence[float],
    *,
    count: int,
    cgroups: Sequence[Path] = (),
    first_cgroup: int = 0,
) -> dict[str, Any]:
    """The job of starting `count` processes; each reads one file, a pool of its own.

    Each enters one of some cgroups first, whose numbers begin with `first_cgroup`.
    """
    job = _job("spawn", paths, first_pool, seed, pauses_s)
    return job | {
        "count": count,
        "cgroups": [str(cgroup) for cgroup in cgroups],
        "first_cgroup": first_cgroup,
    }


def _job(
    kind: str, paths: Sequence[Path], pool: int, seed: int, pauses_s: Sequence[float]
) -> dict[str, Any]:
    names = [str(path) for path in paths]
    return {"kind": kind, "paths": names, "pool": pool, "seed": seed, "pauses_s": list(pauses_s)}
