# SPDX-License-Identifier: GPL-2.0-only
"""Reads and writes files again and again, and logs who does: run as a process of its own.

    python -I -S worker.py CLAIMS JOBS

JOBS is a JSON file: a list of jobs, each for a thread of its own. It is removed when all files of
the jobs are open. Whoever is about to use the files of a pool appends a claim to CLAIMS first; it
holds until the next claim of that pool.
"""

import ctypes
import json
import os
import random
import resource
import signal
import struct
import sys
import threading
import time
from typing import Any

CLAIM = struct.Struct("=qiiii16s")  # as CLAIM of tests/truth/claims.py
NO_CGROUP = -1
_PR_SET_PDEATHSIG = 1
_LONGEST_NAME = 15
_MOST_CHILDREN = 4


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with open(sys.argv[2]) as file:  # noqa: PTH123 (pathlib takes long to import)
        jobs = json.load(file)
    for job in jobs:
        job["files"] = [os.open(path, os.O_RDWR) for path in job["paths"]]
    os.unlink(sys.argv[2])  # noqa: PTH108
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    kinds = {"read": read_files, "write": write_files, "spawn": spawn_readers}
    threads = [threading.Thread(target=kinds[job["kind"]], args=(job, log)) for job in jobs[1:]]
    for thread in threads:
        thread.start()
    kinds[jobs[0]["kind"]](jobs[0], log)


def read_files(job: dict[str, Any], log: int) -> None:
    """Reads the files of a pool from the device, under a name that changes."""
    dice = random.Random(job["seed"])
    while True:
        change_name(dice)
        claim(log, job["pool"])
        pause_s = dice.choice(job["pauses_s"])
        end = time.monotonic() + dice.uniform(0.1, 1)
        for file in dice.sample(job["files"], len(job["files"])):
            read_from_device(file)
            if pause_s:
                time.sleep(pause_s)
            if time.monotonic() > end:
                break


def write_files(job: dict[str, Any], log: int) -> None:
    """Overwrites the files of a pool; every second time it leaves the rest to the kernel."""
    dice = random.Random(job["seed"])
    change_name(dice)
    claim(log, job["pool"])
    while True:
        file = dice.choice(job["files"])
        os.pwrite(file, b"w" * os.fstat(file).st_size, 0)
        if dice.random() < 0.5:
            os.fsync(file)
        time.sleep(dice.choice(job["pauses_s"]))


def spawn_readers(job: dict[str, Any], log: int) -> None:
    """Reads each file in a process that ends then; each is a pool, from `pool` on."""
    dice = random.Random(job["seed"])
    running: dict[int, int] = {}
    free = list(range(len(job["files"])))
    for _ in range(job["count"]):
        while not free or len(running) >= _MOST_CHILDREN:
            free.append(running.pop(os.wait()[0]))
        place = free.pop(dice.randrange(len(free)))
        seed = dice.random()
        pid = os.fork()
        if pid == 0:
            try:
                _read_one(job, place, random.Random(seed), log)
            finally:
                os._exit(0)
        running[pid] = place
        time.sleep(dice.choice(job["pauses_s"]))
    while running:
        running.pop(os.wait()[0])


def _read_one(job: dict[str, Any], place: int, dice: random.Random, log: int) -> None:
    cgroup = enter_cgroup(dice.randrange(len(job["cgroups"])), job) if job["cgroups"] else NO_CGROUP
    change_name(dice)
    claim(log, job["pool"] + place, cgroup)
    for _ in range(dice.randint(1, 3)):
        read_from_device(job["files"][place])


def enter_cgroup(number: int, job: dict[str, Any]) -> int:
    """Enters one of the job's cgroups; NO_CGROUP if that is gone."""
    try:
        file = os.open(os.path.join(job["cgroups"][number], "cgroup.procs"), os.O_WRONLY)  # noqa: PTH118
        os.write(file, b"0")
    except OSError:
        return NO_CGROUP
    os.close(file)
    return int(job["first_cgroup"]) + number


def read_from_device(file: int) -> None:
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(file, 1 << 20, 0)


def change_name(dice: random.Random) -> None:
    """Gives the thread a name of letters, of any text, or of any bytes."""
    length = dice.randint(1, _LONGEST_NAME)
    name = {
        "letters": bytes(dice.choices(b"abcdefghijlmnopqrstuvwxyz-_/:", k=length)),
        "text": "".join(dice.choices("aé\\ü 漢\U0001f40d'", k=length)).encode(),
        "bytes": bytes(dice.randint(1, 255) for _ in range(length)),
    }[dice.choice(("letters", "text", "bytes"))]
    file = os.open("/proc/thread-self/comm", os.O_WRONLY)
    os.write(file, name[:_LONGEST_NAME])
    os.close(file)


def claim(log: int, pool: int, cgroup: int = NO_CGROUP) -> None:
    """Says that the files of a pool are this thread's from now on."""
    file = os.open("/proc/thread-self/comm", os.O_RDONLY)
    name = os.read(file, 64)[:-1]
    os.close(file)
    now_ns, pid, tid = time.monotonic_ns(), os.getpid(), threading.get_native_id()
    os.write(log, CLAIM.pack(now_ns, pool, pid, tid, cgroup, name))


if __name__ == "__main__":
    main()
