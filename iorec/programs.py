"""Compiles, loads and attaches the kernel programs; the only module that imports bcc."""

import array
import contextlib
import ctypes
import errno
import mmap
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from analyze.errors import IorecError
from iorec.btf import KernelTypes, libbpf
from iorec.cgroups import is_io_controller_unified
from iorec.comm_glob import glob_masks
from iorec.kernel_header import kernel_header
from iorec.output import advice
from iorec.plan import KernelFilter, Plan

BPF_FOLDER = Path(__file__).parent.parent / "bpf"
# In front of the files of the layers; each stands behind what it uses.
_SHARED_SOURCES = ("ledger", "table", "filter", "device", "owner", "io")

MAPS = ("records", "control", "lanes", "in_flight", "tallies", "gaps")

_CALLS_ITSELF = "bios_complete"  # by the table of tail calls
# No other number in the programs, see copy_mark() in bpf/ledger.c.
_COPY_MARK = 0x2EC0_17D5
_START_BEFORE_6_5 = "block_getrq"

# include/uapi/linux/bpf.h
_PROG_TYPE_SOCKET_FILTER, _PROG_TYPE_TRACING = 1, 26
_TRACE_RAW_TP = 23

_NEEDS = "record needs root, or CAP_BPF and CAP_PERFMON; a container may deny them"


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


def load_programs(plan: Plan) -> tuple[dict[str, int], bool]:
    """File descriptors by name (`map NAME`, `program NAME`, `link NAME`), and whether they trace.

    Raises IorecError for whatever keeps the programs from being compiled, loaded or attached.
    """
    bcc = import_bcc()
    tracepoints = dict(plan.programs)
    with KernelTypes() as kernel:
        header = kernel_header(kernel, has_bios="bio" in plan.layers)
        if "rq_start" in tracepoints and not kernel.has_tracepoint(tracepoints["rq_start"]):
            tracepoints["rq_start"] = _START_BEFORE_6_5
        targets = {name: kernel.tracepoint_id(place) for name, place in tracepoints.items()}
    defines = {
        "CPUS": str(possible_cpus()),
        "LAYERS": str(plan.layer_count),
        "LANES": str(max(lanes.stop for lanes in plan.lanes.values())),
        **{f"{name.upper()}_LANE": str(lanes.start) for name, lanes in plan.lanes.items()},
        **({"RECORDS_BIOS": "1"} if "bio" in plan.layers else {}),
        **({"IS_IO_CONTROLLER_UNIFIED": "1"} if is_io_controller_unified() else {}),
        "BUCKETS": str(plan.bucket_count),
        "RING_PAGES": str(plan.ring_bytes // mmap.PAGESIZE),
        "COPY_MARK": str(_COPY_MARK),
        "PAGE_SIZE": str(mmap.PAGESIZE),
        **plan.kernel_filter.defines(),
        **({"HAVE_CMPXCHG": "1"} if _has_cmpxchg() else {}),
    }
    if plan.wants_trace:
        with contextlib.suppress(IorecError):
            return _load_with(bcc, plan, header, {**defines, "TRACE": "1"}, targets), True
    return _load_with(bcc, plan, header, defines, targets), False


def possible_cpus() -> int:
    # A list of ranges such as 0-3,8-11; maps are indexed by number, so the highest one counts.
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def _load_with(
    bcc: Any, plan: Plan, header: str, defines: Mapping[str, str], targets: Mapping[str, int]
) -> dict[str, int]:
    module = _compile(bcc, plan, header, defines)
    _fill_filters(module, plan.kernel_filter)
    named = {f"map {name}": module[name.encode()].map_fd for name in MAPS}
    # The verifier takes 0.2 s for the longest of them.
    with ThreadPoolExecutor() as pool:
        loading = {
            name: [
                pool.submit(load_program, bcc, module, name, target, copy)
                for copy in range(plan.copy_count(name))
            ]
            for name, target in targets.items()
        }
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            program = loaded.result()
            if name == _CALLS_ITSELF:
                table = module[b"complete_more_bios"]
                table[table.Key(copy)] = table.Leaf(program)
                # Without a descriptor of it, the kernel empties the table (prog_array_map_clear).
                named["link complete_more_bios"] = table.map_fd
            named[f"program {copy_name(name, copy)}"] = program
    # In the order of their copies: each is called after those attached before.
    for name, copies in loading.items():
        for copy, loaded in enumerate(copies):
            link = attach_program(loaded.result(), name)
            named[f"link {copy_name(name, copy)}"] = link
    return named


def copy_name(program: str, copy: int) -> str:
    """What the kernel calls a copy of a program, counted from 0: 15 characters at most."""
    return f"{program}_{copy + 1}" if copy else program


def load_program(bcc: Any, module: Any, name: str, tracepoint_id: int, copy: int = 0) -> int:
    """A file descriptor of a compiled program, which the verifier has let through."""
    log = ctypes.create_string_buffer(1 << 20)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=_TRACE_RAW_TP,
        attach_btf_id=tracepoint_id,
        log_size=len(log),
        log_buf=ctypes.cast(log, ctypes.c_void_p),
    )
    start = bcc.lib.bpf_function_start(module.module, name.encode())
    size = bcc.lib.bpf_function_size(module.module, name.encode())
    instructions = ctypes.string_at(start, size)
    if struct.pack("=I", _COPY_MARK) not in instructions and copy:
        raise IorecError(f"the program {name} has no mark", "please report this as a defect")
    instructions = instructions.replace(struct.pack("=I", _COPY_MARK), struct.pack("=I", copy))

    def load() -> int:
        arguments = instructions, size // 8, ctypes.byref(opts)
        program_name = copy_name(name, copy).encode()
        return int(libbpf().bpf_prog_load(_PROG_TYPE_TRACING, program_name, b"GPL", *arguments))

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


def _compile(bcc: Any, plan: Plan, header: str, defines: Mapping[str, str]) -> Any:
    # One text, as BCC takes map operations in its main file only.
    sources = [BPF_FOLDER / f"{name}.c" for name in (*_SHARED_SOURCES, *plan.layers)]
    text = header + "".join(f'#line 1 "{path}"\n{path.read_text()}' for path in sources)
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    with _captured_stderr() as output:
        try:
            return bcc.BPF(text=text, cflags=[f"-I{BPF_FOLDER}", *flags])
        except Exception as error:
            failure = error
    if refusal := re.search(r"could not open bpf map: (\w+), error: (.+)", output[0]):
        raise IorecError(
            f"the kernel refused to create the map {refusal[1]}: {refusal[2]}", _NEEDS
        ) from failure
    raise IorecError(
        f"cannot compile the programs for this kernel: {output[0].strip() or failure}",
        "please report this with the output of `uname -a`",
    ) from failure


def _has_cmpxchg() -> bool:
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


def _fill_filters(module: Any, kernel_filter: KernelFilter) -> None:
    all_partitions = 0xFFFFFFFF
    if kernel_filter.devices:
        table = module[b"filter_device"]
        for dev, partno in kernel_filter.devices:
            key = table.Key(dev, all_partitions if partno is None else partno)
            table[key] = table.Leaf(1)
    if kernel_filter.pids:
        table = module[b"filter_pid"]
        for pid in kernel_filter.pids:
            table[table.Key(pid)] = table.Leaf(1)
    if kernel_filter.comms:
        table = module[b"filter_comm"]
        for comm in kernel_filter.comms:
            table[table.Key(comm.encode(errors="surrogateescape")[:15])] = table.Leaf(1)
    for index, glob in enumerate(kernel_filter.comm_globs):
        table = module[b"comm_globs"]
        table[table.Key(index)] = table.Leaf.from_buffer_copy(glob_masks(glob))
    for index, folder in enumerate(kernel_filter.cgroup_folders):
        module[b"filter_cgroup"][index] = folder


def _refused(what: str, error: int, log: str = "") -> IorecError:
    hint = "please report this with the output of `uname -a`"
    if error in (errno.EPERM, errno.EACCES) and not log:
        hint = _NEEDS
    message = f"the kernel refused to {what}: {os.strerror(error)}"
    if error == errno.EMFILE:
        return IorecError(message, advice(message))
    if tail := log.strip().splitlines()[-8:]:
        message += "\n" + "\n".join(tail)
    return IorecError(message, hint)
