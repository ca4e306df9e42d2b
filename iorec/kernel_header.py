"""Generates the C header that fits the programs in bpf/ to the running kernel."""

from collections.abc import Iterable

from iorec.btf import KernelTypes, Member

# What the programs read. A member that a kernel lacks is left out; the HAVE_ macros say which.
_STRUCTS = {
    "gendisk": ("major", "first_minor"),
    "hd_struct": ("partno",),
    "block_device": ("bd_disk", "bd_partno", "__bd_flags"),
    "bio": ("bi_bdev", "bi_disk", "bi_partno", "bi_opf"),
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
}

# The RQF_ flags were macros until 6.10 and then an enum, without a name in 6.12.
_FLUSH_SEQ_BIT_OF_MACROS = 4


def kernel_header(kernel: KernelTypes) -> str:
    """C text: struct definitions, HAVE_ macros and constants of the running kernel."""
    structs = {name: kernel.members(name) for name in _STRUCTS}
    lines = [f"struct {name};" for name in _STRUCTS]
    for name, wanted in _STRUCTS.items():
        members = [structs[name][member] for member in wanted if member in structs[name]]
        lines += _struct_definition(name, members)
    lines += [f"#define {macro}" for macro in _features(kernel, structs)]
    lines += [f"#define {macro} {value}" for macro, value in _constants(kernel).items()]
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


def _struct_definition(name: str, members: Iterable[Member]) -> list[str]:
    lines = [f"struct {name} {{"]
    end = 0
    for member in sorted(members, key=lambda m: m.offset):
        if member.offset > end:
            lines.append(f"\tchar padding_{end}[{member.offset - end}];")
        c_type = member.c_type if member.c_type.endswith("*") else f"u{8 * member.size}"
        lines.append(f"\t{c_type} {member.name};")
        end = member.offset + member.size
    return [*lines, "};"]


def _features(kernel: KernelTypes, structs: dict[str, dict[str, Member]]) -> list[str]:
    features = [macro for macro, (name, member) in _FEATURES.items() if member in structs[name]]
    if kernel.has_tracepoint("block_io_start"):
        features.append("HAVE_BLOCK_IO_START")  # 6.5
    if has_blk_status(kernel):
        features.append("HAVE_BLK_STATUS")
    return features


def _constants(kernel: KernelTypes) -> dict[str, str]:
    ops = req_ops(kernel)
    passthrough = [value for name, value in ops.items() if name.endswith(("_IN", "_OUT"))]
    flush_seq = request_flag_bits(kernel).get("__RQF_FLUSH_SEQ", _FLUSH_SEQ_BIT_OF_MACROS)
    arguments = {
        "GETRQ_BIO_ARGUMENT": ("block_getrq", "struct bio *"),
        "ISSUE_REQUEST_ARGUMENT": ("block_rq_issue", "struct request *"),
        "REQUEUE_REQUEST_ARGUMENT": ("block_rq_requeue", "struct request *"),
        "MERGE_REQUEST_ARGUMENT": ("block_rq_merge", "struct request *"),
    }
    return {
        "REQ_OP_MASK": "0xff",
        "REQ_OP_FLUSH": str(ops["REQ_OP_FLUSH"]),
        "FIRST_PASSTHROUGH_OP": str(min(passthrough)),
        "RQF_FLUSH_SEQ": f"(1U << {flush_seq})",
        # The queue was the first argument until 5.11, and in stable kernels before 5.10.137.
        **{
            macro: str(kernel.tracepoint_arguments(tracepoint).index(c_type))
            for macro, (tracepoint, c_type) in arguments.items()
        },
    }
