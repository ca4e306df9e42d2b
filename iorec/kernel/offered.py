# SPDX-License-Identifier: GPL-2.0-only
"""Says which layers the running kernel, or this machine, does not offer."""

import platform
from dataclasses import dataclass

from analyze.errors import IorecError
from iorec.kernel.btf import KernelTypes
from iorec.kernel.kept import kept
from iorec.kernel.layers import AIO, SYSCALL, URING, WAIT
from iorec.kernel.symbols import are_symbols_shown


@dataclass(frozen=True)
class Lacking:
    """Why a layer cannot be recorded, and what to do; by its name."""

    reasons: dict[str, tuple[str, str]]


def lacking_layers() -> dict[str, str]:
    """Why each layer that cannot be recorded here is one."""
    return {name: message for name, (message, _) in _read().reasons.items()}


def check_layers(layers: tuple[str, ...]) -> None:
    """Raises IorecError for the first of these that cannot be recorded."""
    for name, (message, hint) in _read().reasons.items():
        if name in layers:
            raise IorecError(message, hint)


def _read() -> Lacking:
    found = kept(Lacking, (), lambda: Lacking(dict(_reasons())))
    if WAIT.name in found.reasons or are_symbols_shown():  # which can change at any time
        return found
    message = "the layer wait needs to know where the kernel's functions are, which it hides"
    hint = "run it as root, with kernel.kptr_restrict of 0 or 1, or leave it out"
    return Lacking(found.reasons | {WAIT.name: (message, hint)})


def _reasons() -> list[tuple[str, tuple[str, str]]]:
    found = []
    if platform.machine() != "x86_64":
        for layer in (SYSCALL, AIO):
            message = (
                f"the layer {layer.name} knows the calls of x86_64, not of {platform.machine()}"
            )
            found.append((layer.name, (message, "record the layers request and bio")))
    with KernelTypes() as kernel:
        arguments = kernel.find_arguments("io_uring_complete")
        has_current_task = "BPF_FUNC_get_current_task_btf" in kernel.enum("bpf_func_id")
    if not has_current_task or platform.machine() != "x86_64":
        message = "the layer wait needs x86_64 and Linux 5.11 or later"
        found.append((WAIT.name, (message, "leave it out")))
    # Before 6.0 it shows what the user's program calls the operation, which may be the same of two.
    if arguments[1:2] != ("void *",):
        lacks = "does not" if arguments else "has no io_uring"
        message = "the layer uring needs a kernel that shows which operation of io_uring has ended:"
        hint = "use Linux 6.0 or later, or record the layers syscall and request"
        found.append((URING.name, (f"{message} this one {lacks}", hint)))
    return found
