# SPDX-License-Identifier: GPL-2.0-only
"""fio on a loop device, at full rate."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iorec.host.diskstats import read_diskstats
from tests.kernel.conftest import LoopDevice

FIO = ("fio", "--direct=1", "--bs=4k", "--ioengine=io_uring", "--iodepth=32", "--thread")


@contextmanager
def running_load(loop: LoopDevice, *options: str) -> Iterator["Load"]:
    load = Load(loop, *options)
    try:
        load.wait_for_ios(1000)
        yield load
    finally:
        if load.process.poll() is None:
            load.stop()


class Load:
    """fio at full rate in the background; it may be stopped and continued."""

    def __init__(self, loop: LoopDevice, *options: str) -> None:
        command = [*fio(loop, *options), "--time_based", "--runtime=600", "--output-format=json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._device = loop.name

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ios(self) -> int:
        """I/Os of the device so far, as the kernel counts them."""
        return sum(stats.ios for stats in read_diskstats()[self._device].groups.values())

    def wait_for_ios(self, count: int) -> None:
        goal, deadline = self.ios() + count, time.monotonic() + 30
        while self.ios() < goal:
            assert time.monotonic() < deadline, "no load"
            time.sleep(0.01)

    def stop(self) -> dict[str, Any]:
        """Ends it and returns what it counted."""
        self.resume()
        self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=60)[0]
        return dict(json_of(output)["jobs"][0])


def fio(loop: LoopDevice, *options: str) -> list[str]:
    """A command that reads and writes a loop device at full rate."""
    return [*FIO, f"--filename={loop.path}", "--name=load", *options]


def json_of(output: str) -> dict[str, Any]:
    """What fio prints as JSON, behind its notes."""
    return dict(json.loads(output[output.index("{") :]))
