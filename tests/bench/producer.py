# SPDX-License-Identifier: GPL-2.0-only
"""Fills a ring buffer as fast as another process can make system calls."""

import mmap
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iorec.kernel.compile import BPF_FOLDER, import_bcc

RING_BYTES = 16 << 20

_RECORDS_PER_RUN = 16


@contextmanager
def producing() -> Iterator[Any]:
    """The ring buffer of numbered records (producer.c) as BCC's table, filled all the time."""
    bcc = import_bcc()
    flags = {
        "RING_PAGES": RING_BYTES // mmap.PAGESIZE,
        "RECORDS_PER_RUN": _RECORDS_PER_RUN,
        "PAGE_SIZE": mmap.PAGESIZE,
    }
    module = bcc.BPF(
        text=Path(__file__).with_suffix(".c").read_bytes(),
        cflags=[f"-I{BPF_FOLDER}", *(f"-D{name}={value}" for name, value in flags.items())],
    )
    program = module.load_func(b"produce", bcc.BPF.SOCKET_FILTER)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        bcc.lib.bpf_attach_socket(receiver.fileno(), program.fd)
        parent, child = os.getpid(), os.fork()
        if child == 0:
            while os.getppid() == parent:
                for _ in range(1000):
                    sender.send(b"x")
            os._exit(0)
        try:
            yield module
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
