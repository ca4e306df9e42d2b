# SPDX-License-Identifier: GPL-2.0-only
"""Compiles the kernel programs; the only module that imports bcc."""

import contextlib
import ctypes
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analyze.errors import IorecError
from iorec.kernel.libbpf import NEEDS

BPF_FOLDER = Path(__file__).parent.parent.parent / "bpf"
_MAIN = BPF_FOLDER / "iorec.c"
_PART = re.compile(r'^#include "(\w+\.c)"$', re.MULTILINE)


def import_bcc() -> Any:
    """The package bcc, told to compile against the includes in bpf/."""
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_FOLDER)
    try:
        import bcc
    except ImportError as error:
        raise IorecError(
            f"cannot import bcc: {error}",
            "install BCC for Python: apt install python3-bpfcc (Debian, Ubuntu), "
            "dnf install python3-bcc (Fedora); in a virtual environment use --system-site-packages",
        ) from error
    if not hasattr(bcc, "BPF"):
        raise IorecError(
            f"the package bcc in {bcc.__file__} is not the BPF Compiler Collection",
            "uninstall it (pip uninstall bcc) and install python3-bpfcc with apt",
        )
    return bcc


def compile_programs(bcc: Any, header: str, defines: Mapping[str, str]) -> Any:
    """BCC's module of the programs; raises IorecError if they do not compile."""
    text = header + _PART.sub(_read_part, _MAIN.read_text())
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    with _captured_stderr() as output:
        try:
            return bcc.BPF(text=text.encode(), cflags=[f"-I{BPF_FOLDER}", *flags])
        except Exception as error:
            failure = error
    if refusal := re.search(r"could not open bpf map: (\w+), error: (.+)", output[0]):
        raise IorecError(
            f"the kernel refused to create the map {refusal[1]}: {refusal[2]}", NEEDS
        ) from failure
    raise IorecError(
        f"cannot compile the programs for this kernel: {output[0].strip() or failure}",
        "please report this with the output of `uname -a`",
    ) from failure


def _read_part(include: re.Match[str]) -> str:
    # In place of its #include: BCC takes map operations in its main file only.
    path = BPF_FOLDER / include[1]
    return f'#line 1 "{path}"\n{path.read_text()}'


def instructions_of(bcc: Any, module: Any, name: str) -> bytes:
    """The instructions of a compiled program."""
    start = bcc.lib.bpf_function_start(module.module, name.encode())
    size = bcc.lib.bpf_function_size(module.module, name.encode())
    return ctypes.string_at(start, size)


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Keeps what BCC's C++ code prints on file descriptor 2 and hands it over at the end."""
    output: list[str] = []
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield output
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            output.append(file.read().decode(errors="replace"))
