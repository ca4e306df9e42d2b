# SPDX-License-Identifier: GPL-2.0-only
"""Generates the C header that fits the programs in bpf/ to the running kernel."""

from collections.abc import Iterable
from pathlib import Path

from iorec.kernel.btf import KernelTypes, Member

# What the programs read. A member that a kernel lacks is left out; the HAVE_ macros say which. A
# member of a member, such as bi_iter.bi_size, becomes one of the outer struct, as bi_size.
_STRUCTS = {
    "gendisk": ("major", "first_minor"),
    "hd_struct": ("partno",),
    "block_device": ("bd_dev", "bd_disk", "bd_partno", "__bd_flags"),
    "bio": (
        "bi_next",
        "bi_bdev",
        "bi_disk",
        "bi_partno",
        "bi_opf",
        "bi_flags",
        "bi_status",
        "bi_iter.bi_sector",
        "bi_iter.bi_size",
        "bi_private",
        "bi_blkg",
        "bi_io_vec",
    ),
    "bio_vec": ("bv_page",),
    "page": ("mapping",),
    "address_space": ("host",),
    "inode": ("i_mode", "i_rdev", "i_mapping", "i_sb", "i_ino", "i_generation"),
    "io_kiocb": ("opcode", "flags", "cqe.fd", "ctx"),
    "io_ring_ctx": (
        "flags",
        "file_table.data.nr",
        "file_table.data.nodes",
        "file_table.files",
        "nr_user_files",
        "submit_state.link.head",
    ),
    "io_rsrc_node": ("file_ptr",),
    "io_fixed_file": (),
    "io_rw": ("kiocb.ki_pos", "len", "flags"),
    "io_uring_cqe": ("res", "flags"),
    "file": ("f_inode", "f_pos", "f_flags"),
    "fdtable": ("fd", "max_fds"),
    "files_struct": ("fdt",),
    "pt_regs": ("di", "si", "dx", "r10", "r8", "r9", "orig_ax"),
    "super_block": ("s_dev", "s_magic", "s_type"),
    "file_system_type": ("fs_flags",),
    "blkcg_gq": ("blkcg",),
    "blkcg": ("css.cgroup",),
    "cgroup": ("kn",),
    "kernfs_node": ("id",),
    "css_set": ("dfl_cgrp",),
    "task_struct": (
        "pid",
        "tgid",
        "comm",
        "cgroups",
        "flags",
        "start_boottime",
        "group_leader",
        "real_parent",
        "real_cred",
        "self_exec_id",
        "files",
        "thread_info.status",
    ),
    "cred": ("euid",),
    "request_queue": ("disk",),
    "request": (
        "q",
        "rq_disk",
        "bio",
        "biotail",
        "part",
        "cmd_flags",
        "rq_flags",
        "__sector",
        "__data_len",
    ),
}

# A macro for each member whose absence changes a program, and the release that added the member.
_FEATURES = {
    "HAVE_QUEUE_DISK": ("request_queue", "disk"),  # d152c682f03c, 5.15
    "HAVE_BI_BDEV": ("bio", "bi_bdev"),  # 309dca309fc3, 5.12
    "HAVE_BD_FLAGS": ("block_device", "__bd_flags"),  # 6.10; bd_partno before
    "HAVE_BI_BLKG": ("bio", "bi_blkg"),  # CONFIG_BLK_CGROUP
    "HAVE_RSRC_NODES": ("io_ring_ctx", "nodes"),  # 6.13
}

# The RQF_ flags were macros until 6.10 and then an enum, without a name in 6.12.
_FLUSH_SEQ_BIT_OF_MACROS = 4


def kernel_header(kernel: KernelTypes, *, has_bios: bool) -> str:
    """C text: struct definitions, HAVE_ macros and constants of the running kernel."""
    structs = {
        name: {m.name: m for path in wanted if (m := kernel.member(name, path)) is not None}
        for name, wanted in _STRUCTS.items()
    }
    lines = [f"struct {name};" for name in _STRUCTS]
    for name, members in structs.items():
        lines += _struct_definition(name, members.values())
    lines += [f"#define {macro}" for macro in _features(kernel, structs)]
    lines += [f"#define {macro} {value}" for macro, value in _constants(kernel).items()]
    if has_bios:
        # The enum of the flags has no name, which makes it slow to find.
        flag = kernel.enum_holding("BIO_TRACE_COMPLETION")["BIO_TRACE_COMPLETION"]
        lines.append(f"#define BIO_TRACE_COMPLETION (1U << {flag})")
    return "\n".join(lines) + "\n"


def req_ops(kernel: KernelTypes) -> dict[str, int]:
    """REQ_OP_ values by name."""
    return kernel.enum_holding("REQ_OP_READ", "req_op", "req_opf")  # renamed in 6.0


def request_flag_bits(kernel: KernelTypes) -> dict[str, int]:
    """Bit numbers of the RQF_ flags by name; {} where they are macros."""
    return kernel.enum_holding("__RQF_FLUSH_SEQ", "rqf_flags")


def has_blk_status(kernel: KernelTypes) -> bool:
    """Whether a completion reports a blk_status_t, since 5.16 (8a7d267b4a2c), and not an errno."""
    return kernel.tracepoint_arguments("block_rq_complete")[1] == "u8"


def is_preemptible(kernel: KernelTypes) -> bool:
    """Whether a task may be preempted in the middle of a tracepoint's programs.

    Since Linux commit a46023d5616e ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with
    SRCU-fast") (in v7.0), tracepoints are guarded by `tracepoint_srcu`; a variable of that name
    served another purpose before v6.13, when a tracepoint had no member `ext`.
    """
    if kernel.member("tracepoint", "ext") is None:
        return False
    return b" tracepoint_srcu\n" in Path("/proc/kallsyms").read_bytes()


def _struct_definition(name: str, members: Iterable[Member]) -> list[str]:
    lines = [f"struct {name} {{"]
    end = 0
    for member in sorted(members, key=lambda m: m.offset):
        if member.offset > end:
            lines.append(f"\tchar padding_{end}[{member.offset - end}];")
        lines.append(f"\t{_declaration(member)};")
        end = member.offset + member.size
    return [*lines, "};"]


def _declaration(member: Member) -> str:
    if member.c_type.endswith("*"):
        return f"{member.c_type} {member.name}"
    if member.size > 8:
        return f"u64 {member.name}[{member.size // 8}]"
    return f"u{8 * member.size} {member.name}"


def _features(kernel: KernelTypes, structs: dict[str, dict[str, Member]]) -> list[str]:
    features = [macro for macro, (name, member) in _FEATURES.items() if member in structs[name]]
    if kernel.has_tracepoint("block_io_start"):
        features.append("HAVE_BLOCK_IO_START")  # 6.5
    if has_blk_status(kernel):
        features.append("HAVE_BLK_STATUS")
    if "struct io_uring_cqe *" in kernel.find_arguments("io_uring_complete"):
        features.append("HAVE_CQE")  # 6.15
    if "BPF_FUNC_get_current_task_btf" in kernel.enum("bpf_func_id"):
        features.append("HAVE_CURRENT_TASK")  # 3ca1032ab7ab, 5.11
    if kernel.find_arguments("sched_switch")[3:] == ("u32",):
        features.append("HAVE_PREV_STATE")  # 5.18
    return features


def _constants(kernel: KernelTypes) -> dict[str, str]:
    ops, flags = req_ops(kernel), kernel.enum("req_flag_bits")
    passthrough = [value for name, value in ops.items() if name.endswith(("_IN", "_OUT"))]
    flush_seq = request_flag_bits(kernel).get("__RQF_FLUSH_SEQ", _FLUSH_SEQ_BIT_OF_MACROS)
    arguments = {
        "GETRQ_BIO_ARGUMENT": ("block_getrq", "struct bio *"),
        "ISSUE_REQUEST_ARGUMENT": ("block_rq_issue", "struct request *"),
        "REQUEUE_REQUEST_ARGUMENT": ("block_rq_requeue", "struct request *"),
        "MERGE_REQUEST_ARGUMENT": ("block_rq_merge", "struct request *"),
        "BACK_MERGE_BIO_ARGUMENT": ("block_bio_backmerge", "struct bio *"),
        "FRONT_MERGE_BIO_ARGUMENT": ("block_bio_frontmerge", "struct bio *"),
        "SPLIT_BIO_ARGUMENT": ("block_split", "struct bio *"),
        "QUEUE_BIO_ARGUMENT": ("block_bio_queue", "struct bio *"),
        "REMAP_BIO_ARGUMENT": ("block_bio_remap", "struct bio *"),
        "COMPLETE_BIO_ARGUMENT": ("block_bio_complete", "struct bio *"),
    }
    return {
        "REQ_OP_MASK": "0xff",
        **{name: str(ops[name]) for name in ("REQ_OP_READ", "REQ_OP_WRITE", "REQ_OP_FLUSH")},
        "S_IFMT": "0xf000",
        "S_IFBLK": "0x6000",
        "S_IFCHR": "0x2000",
        "S_IFIFO": "0x1000",
        "S_IFSOCK": "0xc000",
        "S_IFDIR": "0x4000",
        "S_IFREG": "0x8000",
        "FIRST_PASSTHROUGH_OP": str(min(passthrough)),
        "RQF_FLUSH_SEQ": f"(1U << {flush_seq})",
        "REQ_PREFLUSH": f"(1U << {flags['__REQ_PREFLUSH']})",
        "REQ_NOWAIT": f"(1U << {flags['__REQ_NOWAIT']})",
        "BLK_STS_IOERR": "10",
        "BLK_STS_AGAIN": "12",
        # The queue was the first argument until 5.11, and in stable kernels before 5.10.137.
        **{
            macro: str(kernel.tracepoint_arguments(tracepoint).index(c_type))
            for macro, (tracepoint, c_type) in arguments.items()
        },
    }
