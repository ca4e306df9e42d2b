# SPDX-License-Identifier: GPL-2.0-only
"""Records every I/O of a Linux machine; `iorec.open("run.parquet")` reads a capture in Python."""

import importlib

TYPE_CHECKING = (
    False  # not of typing, whose import takes as long as all else until Ctrl-C is handled
)
if TYPE_CHECKING:
    from analyze import IorecError, open  # noqa: A004 - as in iorec.open("run.parquet")

__all__ = ["IorecError", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Not before it is asked for: the command must be ready for Ctrl-C at once.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("analyze"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
