# SPDX-License-Identifier: GPL-2.0-only
"""What the compiler makes of the programs is what every kernel takes."""

import base64

import numpy as np

from iorec.kernel.load import compile_plan, defines_of
from iorec.kernel.names import read_kernel_names
from iorec.kernel.plan import KernelFilter, Plan

# struct bpf_insn
INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "i2"), ("imm", "i4")])


def test_programs_for_kernels_without_atomic_fetches_have_only_additions() -> None:
    names = read_kernel_names()
    plan = Plan(KernelFilter(), ("request", "bio"), 1 << 24, 1 << 13, names.is_preemptible)
    defines = defines_of(plan)
    defines.pop("HAVE_CMPXCHG", None)  # 5ffa25502b5a, Linux 5.12
    for name, program in compile_plan(plan, defines).programs.items():
        code = base64.b64decode(program.instructions)
        instructions = np.frombuffer(code, INSTRUCTION)
        atomic = instructions[np.isin(instructions["code"], (0xC3, 0xDB))]  # BPF_STX | BPF_ATOMIC
        assert set(atomic["imm"].tolist()) <= {0}, name  # BPF_ADD
