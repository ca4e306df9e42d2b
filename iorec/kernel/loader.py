# SPDX-License-Identifier: GPL-2.0-only
"""Has a process of its own load the kernel programs and hand over their file descriptors.

The compiler takes 200 MiB that a recorder should not hold for hours, and loading takes privileges
that it should not have.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from analyze.errors import IorecError
from iorec.kernel.load import MAPS, load_programs
from iorec.kernel.plan import KernelFilter, Plan

_MOST_FDS = 253  # SCM_MAX_FD of include/net/scm.h


@dataclass(frozen=True)
class Loaded:
    """File descriptors of what was loaded, by name; links keep the programs attached."""

    maps: dict[str, int]
    programs: dict[str, int]
    links: dict[str, int]
    has_trace: bool
    memory_bytes: int  # of all maps

    def close(self) -> None:
        """Has the kernel forget all of it."""
        for fd in (*self.links.values(), *self.programs.values(), *self.maps.values()):
            os.close(fd)


class Loading:
    """Loads and attaches everything in another process; a context manager.

    With `wants_trace` the programs also print to the kernel's trace_pipe, unless the kernel
    refuses that.
    """

    def __init__(self) -> None:
        """Starts the process, which has the privileges that this one has now."""
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "iorec.kernel.loader", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd="/",  # the compiler asks for it, and this one's may be gone
                start_new_session=True,  # Ctrl-C is for the recorder
            )

    def __enter__(self) -> "Loading":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        with contextlib.suppress(PermissionError):  # a user's recorder may not; it ends by itself
            self._process.kill()
        self._process.wait()

    def begin(self, plan: Plan) -> None:
        """Says what to load."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, as finish() will say
            self._channel.sendall(json.dumps(asdict(plan)).encode())
            self._channel.shutdown(socket.SHUT_WR)

    def finish(self, wait_for: Callable[[int], None]) -> Loaded:
        """Has `wait_for` wait until there is an answer to read on the given file descriptor.

        Raises IorecError for whatever kept the process from loading.
        """
        wait_for(self._channel.fileno())
        message, fds = b"", list[int]()
        with contextlib.suppress(ConnectionResetError):  # it ended before it read the plan
            message, fds, _, _ = socket.recv_fds(self._channel, 1 << 20, _MOST_FDS)
        if not message:
            raise IorecError(
                f"the process that loads the kernel programs ended with {self._process.wait()}",
                "run it again; if it stays, please report it with the output of `iorec doctor`",
            )
        # It takes a moment to end; nobody waits for it, and no zombie is left.
        threading.Thread(target=self._process.wait, daemon=True).start()
        answer = json.loads(message)
        if "error" in answer:
            raise IorecError(*answer["error"])
        if len(fds) < len(answer["names"]):  # the kernel passes as many as there is room for
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        named = dict(zip(answer["names"], fds, strict=True))
        return Loaded(
            maps={name: named[f"map {name}"] for name in MAPS},
            programs={
                name.removeprefix("program "): fd
                for name, fd in named.items()
                if name.startswith("program ")
            },
            links={
                name.removeprefix("link "): fd
                for name, fd in named.items()
                if name.startswith("link ")
            },
            has_trace=answer["has_trace"],
            memory_bytes=answer["memory_bytes"],
        )


def _main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        asked = channel.makefile().read()
        if not asked:  # the recorder ended before it knew what to load
            return
        document = json.loads(asked)
        plan = Plan(**{**document, "kernel_filter": KernelFilter(**document["kernel_filter"])})
        answer: dict[str, Any]
        try:
            loaded = load_programs(plan)
            named = loaded.descriptors
            answer = {
                "names": list(named),
                "has_trace": loaded.has_trace,
                "memory_bytes": loaded.memory_bytes,
            }
        except IorecError as error:
            named, answer = {}, {"error": [error.message, error.hint, error.exit_code]}
        with contextlib.suppress(BrokenPipeError):  # the recorder was stopped meanwhile
            socket.send_fds(channel, [json.dumps(answer).encode()], list(named.values()))


if __name__ == "__main__":
    _main()
