# SPDX-License-Identifier: GPL-2.0-only
"""Calls libbpf, which BCC links already: its structs, and what is made of its answers."""

import array
import ctypes
import errno
import functools
import os
from pathlib import Path

from analyze.errors import IorecError
from iorec.kernel.compiled import Map

NEEDS = "record needs root, or CAP_BPF and CAP_PERFMON; a container may deny them"

# include/uapi/linux/bpf.h
_PROG_TYPE_SOCKET_FILTER, _PROG_TYPE_TRACING = 1, 26
_TRACE_RAW_TP = 23


class _ProgLoadOpts(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 1.0, as far as it is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    )


class _MapCreateOpts(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0, as far as it is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """struct bpf_map_info of include/uapi/linux/bpf.h, its beginning."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class ProgInfo(ctypes.Structure):
    """struct bpf_prog_info of include/uapi/linux/bpf.h."""

    _fields_ = (
        ("before", ctypes.c_uint8 * 192),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
    )


@functools.cache
def libbpf() -> ctypes.CDLL:
    """The libbpf that BCC links already; an error names the package that brings it."""
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise IorecError(
            f"cannot load libbpf: {error}",
            "install BCC for Python: apt install python3-bpfcc (Debian, Ubuntu), "
            "dnf install python3-bcc (Fedora)",
        ) from error
    library.btf__load_vmlinux_btf.restype = ctypes.c_void_p
    library.btf__type_by_id.restype = ctypes.c_void_p
    library.btf__type_by_id.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.btf__name_by_offset.restype = ctypes.c_char_p
    library.btf__name_by_offset.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
    library.btf__type_cnt.argtypes = (ctypes.c_void_p,)
    library.btf__free.argtypes = (ctypes.c_void_p,)
    return library


def describe_map(fd: int) -> Map:
    """What a map was created with; its name is cut to 15 characters."""
    info = _MapInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    if libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)):
        raise _refused("describe a map", ctypes.get_errno())
    return Map(
        info.name.decode(),
        info.type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
    )


def create_map(wanted: Map) -> int:
    """A file descriptor of a new map."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=wanted.flags)
    fd = libbpf().bpf_map_create(
        wanted.kind,
        wanted.name.encode(),
        wanted.key_bytes,
        wanted.value_bytes,
        wanted.entries,
        ctypes.byref(opts),
    )
    if fd < 0:
        raise _refused(f"create the map {wanted.name}", -fd)
    return int(fd)


def map_memory_bytes(fd: int) -> int:
    """What a map takes, as the kernel accounts for it."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("memlock:"))


def update_map(fd: int, key: bytes, value: bytes) -> None:
    """Sets one element of a map."""
    error = libbpf().bpf_map_update_elem(fd, key, value, ctypes.c_uint64(0))
    if error:
        raise _refused("fill a map", -error)


def load_tracing_program(name: str, instructions: bytes, tracepoint_id: int) -> int:
    """A file descriptor of a program that the verifier has let through; `name` has 15 characters.

    Raises IorecError with the end of the verifier's log.
    """
    log = ctypes.create_string_buffer(1 << 20)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=_TRACE_RAW_TP,
        attach_btf_id=tracepoint_id,
        log_size=len(log),
        log_buf=ctypes.cast(log, ctypes.c_void_p),
    )

    def load() -> int:
        arguments = instructions, len(instructions) // 8, ctypes.byref(opts)
        return int(libbpf().bpf_prog_load(_PROG_TYPE_TRACING, name.encode(), b"GPL", *arguments))

    fd = load()
    if fd < 0:
        opts.log_level = 1
        load()
        raise _refused(f"load {name}", -fd, log.value.decode(errors="replace"))
    return fd


def attach_program(program: int, name: str) -> int:
    """A file descriptor that keeps a loaded program running at its tracepoint."""
    link = libbpf().bpf_raw_tracepoint_open(None, program)
    if link < 0:
        raise _refused(f"attach {name}", -link)
    return int(link)


def recursion_misses(program: int) -> int | None:
    """How often the kernel skipped a program; None if it does not tell (see Probes.missed_runs)."""
    info = ProgInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    if libbpf().bpf_obj_get_info_by_fd(program, ctypes.byref(info), ctypes.byref(size)):
        return None
    return int(info.recursion_misses)


def has_cmpxchg() -> bool:
    """Whether programs may compare and exchange atomically (5ffa25502b5a, Linux 5.12)."""
    instructions = array.array(
        "Q",
        (
            0x0000_0000_0000_00B7,  # r0 = 0
            0x0000_0000_FFF8_0A7B,  # *(u64 *)(r10 - 8) = r0
            0x0000_00F1_FFF8_0ADB,  # r0 = cmpxchg_64(r10 - 8, r0, r0)
            0x0000_0000_0000_0095,  # exit
        ),
    )
    fd = libbpf().bpf_prog_load(
        _PROG_TYPE_SOCKET_FILTER,
        b"cmpxchg",
        b"GPL",
        ctypes.c_void_p(instructions.buffer_info()[0]),
        len(instructions),
        None,
    )
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


def _refused(what: str, error: int, log: str = "") -> IorecError:
    hint = "please report this with the output of `iorec doctor`"
    if error in (errno.EPERM, errno.EACCES) and not log:
        hint = NEEDS
    message = f"the kernel refused to {what}: {os.strerror(error)}"
    if error == errno.EMFILE:
        return IorecError(message, "raise the limit of open files (ulimit -n)")
    if tail := log.strip().splitlines()[-8:]:
        message += "\n" + "\n".join(tail)
    return IorecError(message, hint)
