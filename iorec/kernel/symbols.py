# SPDX-License-Identifier: GPL-2.0-only
"""Names the functions of the running kernel by their addresses."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from analyze.errors import IorecError
from analyze.groupings import CALLED_BY

_SYMBOLS = Path("/proc/kallsyms")
_ENOUGH = 100  # the first ones are of a CPU's own data, which begin at 0

# What compilers append to the name of a function that they have made of another one.
_MADE = re.compile(r"\.(constprop|isra|part|cold|llvm)\b.*")
_SCHEDULER = "__sched_text_start", "__sched_text_end"


class KernelSymbols:
    """The functions of /proc/kallsyms, which only shows root where they are.

    `scheduler` says where the scheduler's own functions are: the first address, and how many bytes.
    """

    def __init__(self, text: str) -> None:
        """Raises IorecError for a text without addresses."""
        found = [line.split(None, 3)[:3] for line in text.splitlines()]
        starts = {name: int(start, 16) for start, _, name in found if name in _SCHEDULER}
        if not all(map(starts.get, _SCHEDULER)):
            raise IorecError(
                "the kernel does not say where its functions are",
                "run it as root, with kernel.kptr_restrict of 0 or 1, or leave out the layer wait",
            )
        first, end = (starts[name] for name in _SCHEDULER)
        self.scheduler = first, end - first
        functions = [(int(start, 16), name) for start, _, name in found if name not in _SCHEDULER]
        functions.sort()
        self._starts = [start for start, _ in functions]
        self._names = [name for _, name in functions]

    def call_chain(self, frames: Iterable[int]) -> str | None:
        """The functions of return addresses, the innermost first; 0 is none."""
        # The address to return to may be that of the next function.
        named = [self._name(frame - 1) for frame in frames if frame]
        return CALLED_BY.join(name for name in named if name is not None) or None

    def _name(self, address: int) -> str | None:
        place = bisect_right(self._starts, address) - 1
        return _MADE.sub("", self._names[place]) if place >= 0 else None


def are_symbols_shown() -> bool:
    """Whether the kernel shows this process where its functions are: else all addresses are 0."""
    with _SYMBOLS.open() as lines:
        return any(line.split(None, 1)[0].strip("0") for line in islice(lines, _ENOUGH))


def read_kernel_symbols() -> KernelSymbols:
    """Those of the running kernel."""
    return KernelSymbols(_SYMBOLS.read_text())
