# SPDX-License-Identifier: GPL-2.0-only
"""Says which machine records come from: what makes rows of them besides their names."""

import json
import sys
from dataclasses import dataclass

from analyze.typed_json import SignedInt, dump_object, parse_object
from iorec.kernel.layouts import RECORD
from iorec.kernel.names import KernelNames

# Of a spool; the first ones were Arrow streams of finished rows, the next ones knew less of who
# submits.
_VERSIONS = (2, 3, 4)
_MOST_BYTES = 64 << 10
_MOST_CPUS = 1 << 15
_MOST_FLAG_TEXT = 1 << 10  # of one row
_MOST_OP_TEXT = 64
_FIRST_LAYERS = ("request", "bio")  # which every spool knows
_ERRORS = 256  # what a record's byte can be


@dataclass(frozen=True)
class Origin:
    """A machine, and what a monotonic time of its kernel lacks to wall-clock time."""

    names: KernelNames
    cpu_count: int
    realtime_offset_ns: SignedInt

    def pack(self) -> bytes:
        """The same with which a spool begins, as JSON."""
        return dump_object(_Head(_VERSIONS[-1], sys.byteorder, RECORD.itemsize, self))

    @staticmethod
    def unpack(content: bytes) -> tuple["Origin", int]:
        """It and the version of the spool.

        ValueError if it is none, or of a spool that this version or machine cannot read.
        """
        if len(content) > _MOST_BYTES:
            raise ValueError
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError
        head = parse_object(_Head, document)
        origin = head.origin
        is_own = (head.byte_order, head.record_bytes) == (sys.byteorder, RECORD.itemsize)
        if head.version not in _VERSIONS or not is_own or not origin._is_sane():
            raise ValueError
        return origin, head.version

    def _is_sane(self) -> bool:
        names = self.names
        return (
            0 < self.cpu_count <= _MOST_CPUS
            and all(len(name) <= _MOST_OP_TEXT for name in names.ops.values())
            and all(bit < 32 for bit in names.flags)
            and sum(map(len, names.flags.values())) <= _MOST_FLAG_TEXT
            and all(bit < 32 for bit in names.call_flags)
            and sum(map(len, names.call_flags.values())) <= _MOST_FLAG_TEXT
            and names.errnos.keys() >= set(_FIRST_LAYERS)
            and all(len(errnos) == _ERRORS for errnos in names.errnos.values())
            and all(errno < 1 << 15 for errnos in names.errnos.values() for errno in errnos)
        )


@dataclass(frozen=True)
class _Head:
    version: int
    byte_order: str
    record_bytes: int
    origin: Origin
