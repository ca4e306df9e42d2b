# SPDX-License-Identifier: GPL-2.0-only
"""Compiles the loop in C where there is a compiler, and loads it."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iorec.kernel.kept import kept
from iorec.replay.layout import Pace

_SOURCE = Path(__file__).with_name("pace.c")
_COMPILERS = ("cc", "gcc", "clang")
_PATH = "/usr/local/bin:/usr/bin:/bin"  # root runs what it finds there
_FLAGS = ("-O2", "-shared", "-fPIC", "-std=gnu11")
_PATIENCE_S = 60

Run = Callable[[int], int]


@dataclass(frozen=True)
class _Library:
    """The compiled loop, in base64."""

    content: str


def native_run(pace: Pace) -> Run | None:
    """The loop in C on this struct; None without a compiler that takes it.

    It is kept in /var/cache/iorec for the next start, as the kernel programs are.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    basis = (_SOURCE.read_text(), compiler, os.uname().machine, *_FLAGS)
    try:
        library = kept(_Library, basis, lambda: _compile(compiler))
    except (OSError, subprocess.SubprocessError):
        return None  # and the next start tries again
    return _load(b64decode(library.content), pace)


def find_compiler() -> str | None:
    """The path of a C compiler."""
    found = (shutil.which(name, path=_PATH) for name in _COMPILERS)
    return next(filter(None, found), None)


def _compile(compiler: str) -> _Library:
    with tempfile.TemporaryDirectory(prefix="iorec-") as folder:
        made = Path(folder, "pace.so")
        subprocess.run(
            [compiler, *_FLAGS, "-o", str(made), str(_SOURCE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=True,
        )
        return _Library(b64encode(made.read_bytes()).decode())


def _load(content: bytes, pace: Pace) -> Run:
    """Loads it from memory: the file that was checked is the one that runs."""
    fd = os.memfd_create("iorec-pace")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        library = ctypes.CDLL(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    library.pace_run.argtypes = [ctypes.POINTER(Pace), ctypes.c_int64]
    library.pace_run.restype = ctypes.c_int64
    return lambda until_ns: int(library.pace_run(ctypes.byref(pace), until_ns))
