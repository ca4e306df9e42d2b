"""Compiles, loads and attaches the kernel programs; the only module that imports bcc."""

import contextlib
import ctypes
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError
from iorec.btf import KernelTypes, libbpf
from iorec.kernel_header import kernel_header
from iorec.records import (
    COMPLETE_COUNTERS,
    COUNTERS,
    GAP,
    IDENTITY,
    RECORD,
    SLOT,
    SLOTS_PER_BUCKET,
    TALLY,
)
from iorec.ring import Ring

BPF_FOLDER = Path(__file__).parent.parent / "bpf"

IDENTITIES_PER_CPU = 4096
_TALLIES_PER_LANE = 256
_GAPS_PER_LANE = 256

# Completions first, so that nothing is seen to start whose end would be missed.
_PROGRAMS = {
    "on_complete": "block_rq_complete",
    "on_nested_complete": "block_rq_complete",
    "on_merge": "block_rq_merge",
    "on_requeue": "block_rq_requeue",
    "on_issue": "block_rq_issue",
    "on_start": "block_io_start",
}
_START_BEFORE_6_5 = "block_getrq"

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


@dataclass(frozen=True)
class KernelFilter:
    """What the kernel programs let through; an empty collection lets everything through."""

    devices: tuple[tuple[int, int | None], ...] = ()  # (dev, partition number or None for all)
    pids: tuple[int, ...] = ()
    comms: tuple[bytes, ...] = ()
    cgroup_folders: tuple[Path, ...] = ()
    ops: tuple[int, ...] = ()
    min_latency_ns: int | None = None
    excluded_pid: int | None = None

    def defines(self) -> dict[str, str]:
        """The macros of bpf/request.c for what is filtered."""
        found = {
            "FILTER_DEVICE": "1" if self.devices else "",
            "FILTER_PID": "1" if self.pids else "",
            "FILTER_COMM": "1" if self.comms else "",
            "FILTER_CGROUPS": str(len(self.cgroup_folders) or ""),
            "FILTER_OPS": f"{sum(1 << op for op in set(self.ops)):#x}ULL" if self.ops else "",
            "MIN_LATENCY_NS": f"{self.min_latency_ns}ULL" if self.min_latency_ns else "",
            "EXCLUDED_PID": str(self.excluded_pid or ""),
        }
        return {name: value for name, value in found.items() if value}


@dataclass
class Probes:
    """The attached programs and the maps they write, as arrays; a context manager.

    `counters` has one row per CPU, `completions` one per lane (see bpf/request.c), `in_flight` one
    per slot; `identities` is shaped (CPUs, rows), `tallies` and `gaps` (lanes, rows). Reading them
    needs no privilege.
    """

    ring: Ring
    is_recording: NDArray[np.uint64]
    counters: NDArray[np.void]
    completions: NDArray[np.void]
    in_flight: NDArray[np.void]
    identities: NDArray[np.void]
    tallies: NDArray[np.void]
    gaps: NDArray[np.void]
    has_trace: bool
    _programs: dict[str, int] = field(default_factory=dict)
    _links: list[int] = field(default_factory=list)

    def __enter__(self) -> "Probes":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
        for fd in self._programs.values():
            os.close(fd)
        self._programs.clear()

    def detach(self) -> None:
        """Detaches every program; afterwards nothing writes the maps any more."""
        while self._links:
            os.close(self._links.pop())

    def missed_runs(self) -> dict[str, int]:
        """How often the kernel skipped each program because it was running on that CPU already.

        Counted since Linux 5.12 (9ed9e9ba2337); {} before.
        """
        missed = {}
        for name, fd in self._programs.items():
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
                if line.startswith("recursion_misses:"):
                    missed[name] = int(line.split()[1])
        return missed


def load_probes(
    kernel_filter: KernelFilter, ring_bytes: int, bucket_count: int, *, wants_trace: bool = False
) -> Probes:
    """Compiles, loads and attaches all programs; recording begins when `is_recording[0]` is set.

    `ring_bytes` and `bucket_count` are powers of two. With `wants_trace` the programs also print
    to the kernel's trace_pipe, unless the kernel refuses that.
    """
    bcc = _import_bcc()
    with KernelTypes() as kernel:
        header = kernel_header(kernel)
    defines = {
        "CPUS": str(_possible_cpus()),
        "BUCKETS": str(bucket_count),
        "RING_PAGES": str(ring_bytes // mmap.PAGESIZE),
        "IDENTITIES": str(IDENTITIES_PER_CPU),
        "PAGE_SIZE": str(mmap.PAGESIZE),
        **kernel_filter.defines(),
        **({"HAVE_CMPXCHG": "1"} if _has_cmpxchg() else {}),
        **({"TRACE": "1"} if wants_trace else {}),
    }
    module = _compile(bcc, header, defines)
    try:
        _fill_filters(module, kernel_filter)
        probes = _map_arrays(module, bucket_count * SLOTS_PER_BUCKET, ring_bytes)
        probes.has_trace = wants_trace
        try:
            _attach(bcc, module, probes, header)
        except BaseException:
            probes.__exit__()
            raise
    except IorecError:
        if not wants_trace:
            raise
        return load_probes(kernel_filter, ring_bytes, bucket_count)
    finally:
        module.cleanup()
    return probes


def _import_bcc() -> Any:
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


def _possible_cpus() -> int:
    # A list of ranges such as 0-3,8-11; maps are indexed by number, so the highest one counts.
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


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


def _compile(bcc: Any, header: str, defines: Mapping[str, str]) -> Any:
    source = BPF_FOLDER / "request.c"
    text = f'{header}#line 1 "{source}"\n{source.read_text()}'
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    with _captured_stderr() as output:
        try:
            return bcc.BPF(text=text, cflags=[f"-I{BPF_FOLDER}", *flags])
        except Exception as error:
            failure = error
    raise IorecError(
        f"cannot compile {source.name} for this kernel: {output[0].strip() or failure}",
        "please report this with the output of `uname -a`",
    ) from failure


def _has_cmpxchg() -> bool:
    """Whether programs may compare and exchange atomically (5ffa25502b5a, Linux 5.12)."""
    instructions = np.array(
        [
            0x0000_0000_0000_00B7,  # r0 = 0
            0x0000_0000_FFF8_0A7B,  # *(u64 *)(r10 - 8) = r0
            0x0000_00F1_FFF8_0ADB,  # r0 = cmpxchg_64(r10 - 8, r0, r0)
            0x0000_0000_0000_0095,  # exit
        ],
        np.uint64,
    )
    fd = libbpf().bpf_prog_load(
        _PROG_TYPE_SOCKET_FILTER,
        b"cmpxchg",
        b"GPL",
        ctypes.c_void_p(instructions.ctypes.data),
        len(instructions),
        None,
    )
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


def _fill_filters(module: Any, kernel_filter: KernelFilter) -> None:
    all_partitions = 0xFFFFFFFF
    if kernel_filter.devices:
        table = module["filter_device"]
        for dev, partno in kernel_filter.devices:
            key = table.Key(dev, all_partitions if partno is None else partno)
            table[key] = table.Leaf(1)
    if kernel_filter.pids:
        table = module["filter_pid"]
        for pid in kernel_filter.pids:
            table[table.Key(pid)] = table.Leaf(1)
    if kernel_filter.comms:
        table = module["filter_comm"]
        for comm in kernel_filter.comms:
            table[table.Key(comm[:15])] = table.Leaf(1)
    for index, folder in enumerate(kernel_filter.cgroup_folders):
        module["filter_cgroup"][index] = str(folder)


def _map_arrays(module: Any, slots: int, ring_bytes: int) -> Probes:
    cpus = _possible_cpus()
    lanes = 2 * cpus

    def array(name: str, dtype: Any, count: int) -> NDArray[Any]:
        dtype = np.dtype(dtype)
        size = -(-count * dtype.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = mmap.mmap(module[name].map_fd, size, mmap.MAP_SHARED)
        return np.frombuffer(pages, dtype, count)

    return Probes(
        ring=Ring(module["records"].map_fd, ring_bytes, RECORD),
        is_recording=array("is_recording", np.uint64, 1),
        counters=array("counters", COUNTERS, cpus),
        completions=array("completions", COMPLETE_COUNTERS, lanes),
        in_flight=array("in_flight", SLOT, slots),
        identities=array("identities", IDENTITY, cpus * IDENTITIES_PER_CPU).reshape(cpus, -1),
        tallies=array("tallies", TALLY, lanes * _TALLIES_PER_LANE).reshape(lanes, -1),
        gaps=array("gaps", GAP, lanes * _GAPS_PER_LANE).reshape(lanes, -1),
        has_trace=False,
    )


def _attach(bcc: Any, module: Any, probes: Probes, header: str) -> None:
    for name, tracepoint in _PROGRAMS.items():
        if name == "on_start" and "HAVE_BLOCK_IO_START" not in header:
            tracepoint = _START_BEFORE_6_5
        fd = _load_program(bcc, module, name, tracepoint)
        probes._programs[name] = fd
        link = libbpf().bpf_raw_tracepoint_open(None, fd)
        if link < 0:
            raise _refused(f"attach to the tracepoint {tracepoint}", -link)
        probes._links.append(link)


def _load_program(bcc: Any, module: Any, name: str, tracepoint: str) -> int:
    lib = libbpf()
    type_id = lib.libbpf_find_vmlinux_btf_id(tracepoint.encode(), _TRACE_RAW_TP)
    if type_id < 0:
        raise _refused(f"find the tracepoint {tracepoint}", -type_id)
    log = ctypes.create_string_buffer(1 << 20)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=_TRACE_RAW_TP,
        attach_btf_id=type_id,
        log_size=len(log),
        log_buf=ctypes.cast(log, ctypes.c_void_p),
    )
    start = bcc.lib.bpf_function_start(module.module, name.encode())
    size = bcc.lib.bpf_function_size(module.module, name.encode())
    instructions = ctypes.c_void_p(start)
    fd = lib.bpf_prog_load(
        _PROG_TYPE_TRACING, name.encode(), b"GPL", instructions, size // 8, ctypes.byref(opts)
    )
    if fd < 0:
        opts.log_level = 1
        lib.bpf_prog_load(
            _PROG_TYPE_TRACING, name.encode(), b"GPL", instructions, size // 8, ctypes.byref(opts)
        )
        raise _refused(f"load {name} for {tracepoint}", -fd, log.value.decode(errors="replace"))
    return int(fd)


def _refused(what: str, error: int, log: str = "") -> IorecError:
    hint = "please report this with the output of `uname -a`"
    if error in (errno.EPERM, errno.EACCES) and not log:
        hint = "record needs root, or CAP_BPF and CAP_PERFMON; a container may deny them"
    message = f"the kernel refused to {what}: {os.strerror(error)}"
    if tail := log.strip().splitlines()[-8:]:
        message += "\n" + "\n".join(tail)
    return IorecError(message, hint)
