# SPDX-License-Identifier: GPL-2.0-only
"""The numpy dtypes of iorec/kernel/layouts.py against the C structs of bpf/records.h."""

import ctypes
import os
import sys

import numpy as np
import pytest

from iorec.kernel import layouts as records
from iorec.kernel.btf import KernelTypes
from iorec.kernel.compile import BPF_FOLDER, compile_programs, import_bcc, instructions_of
from iorec.kernel.header import kernel_header
from iorec.kernel.load import defines_of
from iorec.kernel.names import read_kernel_names
from iorec.kernel.plan import KernelFilter, Plan

# struct bpf_insn
INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "i2"), ("imm", "i4")])

PAIRS = {
    "control": records.CONTROL,
    "record": records.RECORD,
    "slot": records.SLOT,
    "bucket": records.BUCKET,
    "identity": records.IDENTITY,
    "announcement": records.ANNOUNCEMENT,
    "lane": records.LANE,
    "tally": records.TALLY,
    "gap": records.GAP,
}


@pytest.fixture(scope="module")
def structs() -> dict[str, type[ctypes.Structure]]:
    """The C structs as BCC's compiler lays them out."""
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_FOLDER)
    import bcc

    tables = "".join(f"BPF_ARRAY(table_{name}, struct {name}, 1);\n" for name in PAIRS)
    flags = [f"-I{BPF_FOLDER}", "-DPAGE_SIZE=4096"]
    module = bcc.BPF(text=f'#include "records.h"\n{tables}'.encode(), cflags=flags)
    leaves = {name: module[f"table_{name}".encode()].Leaf for name in PAIRS}
    module.cleanup()
    return leaves


@pytest.mark.parametrize("name", PAIRS)
def test_every_field_is_where_the_kernel_programs_write_it(
    structs: dict[str, type[ctypes.Structure]], name: str
) -> None:
    struct, dtype = structs[name], PAIRS[name]
    assert ctypes.sizeof(struct) == dtype.itemsize
    offsets = {}
    for field, kind, *_ in struct._fields_:
        # A union has one name for each that may use it, and the dtype the first one.
        known_as = kind._fields_[0][0] if issubclass(kind, ctypes.Union) else field
        offsets[known_as] = getattr(struct, field).offset
    offsets.pop("padding", None)
    assert dtype.fields is not None
    assert offsets == {n: dtype.fields[n][1] for n in dtype.names or () if n != "padding"}


def test_a_record_with_its_header_is_one_cache_line_and_an_announcement_two() -> None:
    assert records.RECORD.itemsize + 8 == records.SLOT.itemsize == 64
    assert records.ANNOUNCEMENT.itemsize + 8 == 2 * 64
    # Where the header of a second record would be.
    fields = records.ANNOUNCEMENT.fields
    assert fields is not None
    assert fields["record_bytes"][1] + 8 == 64
    assert sys.byteorder == "little"


def test_programs_for_kernels_without_atomic_fetches_have_only_additions() -> None:
    names = read_kernel_names()
    plan = Plan(KernelFilter(), ("request", "bio"), 1 << 24, 1 << 13, names.is_preemptible)
    bcc = import_bcc()
    defines = defines_of(plan)
    defines.pop("HAVE_CMPXCHG", None)  # 5ffa25502b5a, Linux 5.12
    with KernelTypes() as kernel:
        module = compile_programs(bcc, plan, kernel_header(kernel, has_bios=True), defines)
    for name in plan.programs:
        instructions = np.frombuffer(instructions_of(bcc, module, name), INSTRUCTION)
        atomic = instructions[np.isin(instructions["code"], (0xC3, 0xDB))]  # BPF_STX | BPF_ATOMIC
        assert set(atomic["imm"].tolist()) <= {0}, name  # BPF_ADD
