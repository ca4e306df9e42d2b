# SPDX-License-Identifier: GPL-2.0-only
"""What the running kernel calls its operations, request flags and errors."""

import errno
from dataclasses import dataclass, field

from iorec.kernel.btf import KernelTypes
from iorec.kernel.calls import (
    AIO_OPS,
    CALL_FLAGS,
    CALL_OPS,
    FIRST_CALL_OP,
    FIRST_URING_OP,
    WAIT_OPS,
)
from iorec.kernel.header import has_blk_status, is_preemptible, req_ops, request_flag_bits
from iorec.kernel.kept import kept

# blk_errors in block/blk-core.c. The statuses from 14 on moved down by one when
# BLK_STS_ZONE_RESOURCE went in 6.10 (the series that brought zone write plugging).
_STATUS_ERRNO = [
    0,
    errno.EOPNOTSUPP,
    errno.ETIMEDOUT,
    errno.ENOSPC,
    errno.ENOLINK,
    errno.EREMOTEIO,
    errno.EBADE,
    errno.ENODATA,
    errno.EILSEQ,
    errno.ENOMEM,
    errno.EIO,
    errno.EREMCHG,
    errno.EAGAIN,
    errno.EBUSY,
]
_LATE_STATUS_ERRNO = [
    errno.ETOOMANYREFS,
    errno.EOVERFLOW,
    errno.ENODEV,
    errno.ETIME,
    errno.EINVAL,
    errno.EINVAL,
]


OP_CACHE_FLUSH = 62  # of bpf/records.h


@dataclass(frozen=True)
class KernelNames:
    """What the running kernel calls its operations, flags and errors."""

    ops: dict[int, str]
    flags: dict[int, str]  # by bit
    errnos: dict[str, tuple[int, ...]]  # of each block layer, by what a record holds as its error
    is_preemptible: bool  # a tracepoint's programs
    call_flags: dict[int, str] = field(default_factory=dict)  # of system calls

    def op(self, cmd_flags: int) -> str:
        """The operation's name; `driver` for passthrough, `op_N` if the kernel has no name."""
        return self.ops.get(cmd_flags & 0xFF, f"op_{cmd_flags & 0xFF}")

    def flag_list(self, cmd_flags: int) -> str:
        """The flags' names in the order of their bits, joined by `|`."""
        flags = self.call_flags if cmd_flags & 0xFF >= FIRST_CALL_OP else self.flags
        return "|".join(name for bit, name in flags.items() if cmd_flags >> bit & 1)


def read_kernel_names() -> KernelNames:
    """The names in the kernel's BTF."""
    return kept(KernelNames, (), _read_kernel_names)


def _read_kernel_names() -> KernelNames:
    with KernelTypes() as kernel:
        has_status = has_blk_status(kernel)
        named = req_ops(kernel).items()
        ops = {value: _op_name(name) for name, value in named if name != "REQ_OP_LAST"}
        ops[OP_CACHE_FLUSH] = "cache_flush"
        bits = kernel.enum("req_flag_bits")
        opcodes = kernel.enum("io_uring_op")
        preemptible = is_preemptible(kernel)
        has_plugging = "__RQF_ZONE_WRITE_PLUGGING" in request_flag_bits(kernel)
    flags: dict[int, str] = {}
    for name, bit in sorted(bits.items(), key=lambda item: item[1]):
        if name != "__REQ_NR_BITS":
            flags.setdefault(bit, name.removeprefix("__REQ_").lower())
    zone_resource = [] if has_plugging else [errno.EBUSY]
    table = [*_STATUS_ERRNO, *zone_resource, *_LATE_STATUS_ERRNO]
    statuses = (*table, *[errno.EIO] * (256 - len(table)))
    of_requests = statuses if has_status else tuple(range(256))
    errnos = {"request": of_requests, "bio": statuses}
    entries = {
        FIRST_URING_OP + value: name.removeprefix("IORING_OP_").lower()
        for name, value in opcodes.items()
        if value < 256 - FIRST_URING_OP and name != "IORING_OP_LAST"
    }
    ops |= CALL_OPS | AIO_OPS | WAIT_OPS | entries
    return KernelNames(ops, flags, errnos, preemptible, CALL_FLAGS)


def _op_name(name: str) -> str:
    name = name.removeprefix("REQ_OP_").lower()
    return "driver" if name.endswith(("_in", "_out")) else name
