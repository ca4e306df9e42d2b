# SPDX-License-Identifier: GPL-2.0-only
"""Holds compiled programs so that they can be kept: nothing in them is of one process."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NUMBER = struct.Struct("=I")


@dataclass(frozen=True)
class Map:
    """A map to create, as struct bpf_map_info of include/uapi/linux/bpf.h has it."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int

    @property
    def memory_bytes(self) -> int:
        """What it takes, by bpf_map_area_alloc() of the kernel: an array's values, or a ring."""
        return self.entries * (-(-self.value_bytes // 8) * 8 or 1)


@dataclass(frozen=True)
class Program:
    """A program for one tracepoint; where it refers to a map, its place among all maps stands."""

    target: int  # BTF id of the tracepoint
    instructions: str  # struct bpf_insn, in base64
    map_references: tuple[int, ...]  # bytes before each such number

    def linked(self, fds: Sequence[int], marks: Mapping[int, int]) -> bytes:
        """The instructions with the file descriptors of all maps, and a value for each mark."""
        code = bytearray(base64.b64decode(self.instructions))
        for place in self.map_references:
            (number,) = _NUMBER.unpack_from(code, place)
            _NUMBER.pack_into(code, place, fds[number])
        linked = bytes(code)
        for mark, value in marks.items():
            linked = linked.replace(_NUMBER.pack(mark), _NUMBER.pack(value))
        return linked


@dataclass(frozen=True)
class Compiled:
    """All programs of a plan by name, and the maps they share."""

    maps: tuple[Map, ...]
    programs: dict[str, Program]
