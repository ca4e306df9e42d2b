# SPDX-License-Identifier: GPL-2.0-only
"""Compiles the kernel programs; the only module that imports bcc."""

import base64
import contextlib
import ctypes
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analyze.errors import IorecError
from iorec.kernel.compiled import Compiled, Map, Program
from iorec.kernel.libbpf import NEEDS, describe_map

BPF_FOLDER = Path(__file__).parent.parent.parent / "bpf"
_MAIN = BPF_FOLDER / "iorec.c"
# include/uapi/linux/bpf.h
_LOAD_64 = 0x18
_PSEUDO_MAP_FD = 1
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


def source_texts() -> list[str]:
    """All files that a compiler may read, with those that are included."""
    return [path.read_text() for path in sorted(BPF_FOLDER.rglob("*.[ch]"))]


def _main_text() -> str:
    """All programs in one text, without the header of the running kernel."""
    # In place of each #include: BCC takes map operations in its main file only.
    return _PART.sub(_read_part, _MAIN.read_text())


def _read_part(include: re.Match[str]) -> str:
    path = BPF_FOLDER / include[1]
    return f'#line 1 "{path}"\n{path.read_text()}'


def compile_programs(
    header: str, defines: Mapping[str, str], targets: Mapping[str, int]
) -> Compiled:
    """The programs named in `targets`, each for its tracepoint (a BTF id), and their maps.

    Raises IorecError if they do not compile.
    """
    bcc = import_bcc()
    module = _compile(bcc, header + _main_text(), defines)
    maps: dict[int, Map] = {}
    programs = {}
    for name, target in targets.items():
        code = instructions_of(bcc, module, name)
        places = list(_map_references(code))
        fds = [struct.unpack_from("=I", code, place)[0] for place in places]
        for fd in fds:
            maps.setdefault(fd, describe_map(fd))
        numbers = list(maps)
        for place, fd in zip(places, fds, strict=True):
            struct.pack_into("=I", code, place, numbers.index(fd))
        programs[name] = Program(target, base64.b64encode(code).decode(), tuple(places))
    return Compiled(tuple(maps.values()), programs)


def instructions_of(bcc: Any, module: Any, name: str) -> bytearray:
    """The instructions of a program that BCC has compiled; they refer to its own maps."""
    start = bcc.lib.bpf_function_start(module.module, name.encode())
    size = bcc.lib.bpf_function_size(module.module, name.encode())
    return bytearray(ctypes.string_at(start, size))


def _map_references(code: bytes | bytearray) -> Iterator[int]:
    """Where the instructions hold a map's file descriptor (BPF_LD | BPF_IMM | BPF_DW)."""
    place = 0
    while place < len(code):
        operation, registers = code[place : place + 2]
        source = registers >> 4 if sys.byteorder == "little" else registers & 15
        if operation == _LOAD_64 and source == _PSEUDO_MAP_FD:
            yield place + 4
        place += 16 if operation == _LOAD_64 else 8


def _compile(bcc: Any, text: str, defines: Mapping[str, str]) -> Any:
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
        "please report this with the output of `iorec doctor`",
    ) from failure


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
