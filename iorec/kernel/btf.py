# SPDX-License-Identifier: GPL-2.0-only
"""Reads struct layouts, enums and tracepoint prototypes from the running kernel's BTF."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from analyze.errors import IorecError
from iorec.kernel.libbpf import libbpf

# include/uapi/linux/btf.h
_KIND_INT, _KIND_PTR, _KIND_ARRAY, _KIND_STRUCT, _KIND_UNION, _KIND_ENUM = range(1, 7)
_KIND_TYPEDEF, _KIND_VOLATILE, _KIND_CONST, _KIND_RESTRICT = range(8, 12)
_KIND_FUNC_PROTO, _KIND_TYPE_TAG, _KIND_ENUM64 = 13, 18, 19
_T = TypeVar("_T", bound=ctypes.Structure)

_MODIFIERS = {_KIND_TYPEDEF, _KIND_VOLATILE, _KIND_CONST, _KIND_RESTRICT, _KIND_TYPE_TAG}


class _Type(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    )

    @property
    def kind(self) -> int:
        return int(self.info) >> 24 & 0x1F

    @property
    def count(self) -> int:
        return int(self.info) & 0xFFFF


class _Member(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


class _Array(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("index_type", ctypes.c_uint32),
        ("nelems", ctypes.c_uint32),
    )


class _Param(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("type", ctypes.c_uint32))


class _Enum(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("val", ctypes.c_int32))


@dataclass(frozen=True)
class Member:
    """A struct member: its offset and size in bytes, its type as C text."""

    name: str
    offset: int
    size: int
    c_type: str


class KernelTypes:
    """The types of the running kernel; a context manager that frees the parsed BTF."""

    def __init__(self) -> None:
        self._lib = libbpf()
        self._btf = self._lib.btf__load_vmlinux_btf()
        if not self._btf:
            raise IorecError(
                "this kernel has no BTF type information (/sys/kernel/btf/vmlinux)",
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; "
                "Debian 11, Ubuntu 20.10, Fedora 31 and later have it",
            )

    def __enter__(self) -> "KernelTypes":
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.btf__free(self._btf)

    def members(self, struct: str) -> dict[str, Member]:
        """Every named member of a struct, those of anonymous members included; {} if unknown."""
        type_id = self._find(struct, _KIND_STRUCT)
        return {m.name: m for m in self._walk(type_id, 0)} if type_id else {}

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a path such as `bi_iter.bi_size`, by its last name; None if unknown."""
        first, _, rest = path.partition(".")
        member = self.members(struct).get(first)
        if member is None or not rest:
            return member
        inner = self.member(member.c_type.removeprefix("struct "), rest)
        return inner and replace(inner, offset=member.offset + inner.offset)

    def enum(self, name: str) -> dict[str, int]:
        """The values of an enum by name; {} if the kernel has no such enum."""
        type_id = self._find(name, _KIND_ENUM)
        return self._enum_values(type_id) if type_id else {}

    def enum_holding(self, value: str, *names: str) -> dict[str, int]:
        """The enum that has the value; {} if none has.

        The given names are tried first; an enum without a name takes a look at every type, 0.2 s.
        """
        for name in names:
            if value in (found := self.enum(name)):
                return found
        for type_id in range(1, self._lib.btf__type_cnt(self._btf)):
            info = self._type(type_id)
            if info.kind == _KIND_ENUM and not info.name_off:
                found = self._enum_values(type_id)
                if value in found:
                    return found
        return {}

    def has_tracepoint(self, tracepoint: str) -> bool:
        """Whether a BPF program can be attached to the tracepoint with typed arguments."""
        return bool(self._find(f"btf_trace_{tracepoint}", _KIND_TYPEDEF))

    def tracepoint_id(self, tracepoint: str) -> int:
        """What a program that is to be attached to the tracepoint is loaded for."""
        type_id = self._find(f"btf_trace_{tracepoint}", _KIND_TYPEDEF)
        if not type_id:
            raise IorecError(
                f"this kernel has no tracepoint {tracepoint}",
                "iorec needs Linux 5.10 or later, built with CONFIG_BLK_DEV_IO_TRACE=y",
            )
        return type_id

    def tracepoint_arguments(self, tracepoint: str) -> tuple[str, ...]:
        """C types of a tracepoint's arguments as a BPF program sees them.

        Source: `btf_trace_NAME` is a typedef of a pointer to a function whose first parameter,
        `void *`, is not passed on.
        """
        type_id = self.tracepoint_id(tracepoint)
        pointer = self._type(self._type(type_id).size_or_type)
        prototype = pointer.size_or_type
        params = self._trailing(prototype, _Param, self._type(prototype).count)
        return tuple(self._c_type(param.type) for param in params[1:])

    def find_arguments(self, tracepoint: str) -> tuple[str, ...]:
        """The same, or nothing where the kernel lacks it."""
        return self.tracepoint_arguments(tracepoint) if self.has_tracepoint(tracepoint) else ()

    def _find(self, name: str, kind: int) -> int:
        type_id: int = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return max(0, type_id)

    def _enum_values(self, type_id: int) -> dict[str, int]:
        values = self._trailing(type_id, _Enum, self._type(type_id).count)
        return {self._name(value.name_off): value.val for value in values}

    def _type(self, type_id: int) -> _Type:
        return _Type.from_address(self._lib.btf__type_by_id(self._btf, type_id))

    def _name(self, offset: int) -> str:
        return str(self._lib.btf__name_by_offset(self._btf, offset).decode())

    def _trailing(self, type_id: int, kind: type[_T], count: int) -> list[_T]:
        base = self._lib.btf__type_by_id(self._btf, type_id) + ctypes.sizeof(_Type)
        return list((kind * count).from_address(base))

    def _walk(self, type_id: int, base: int) -> Iterator[Member]:
        info = self._type(type_id)
        has_bitfields = info.info >> 31
        for member in self._trailing(type_id, _Member, info.count):
            bits = member.offset & 0xFFFFFF if has_bitfields else member.offset
            if has_bitfields and member.offset >> 24:
                continue
            offset = base + bits // 8
            name = self._name(member.name_off)
            if name:
                size = self._size(member.type)
                yield Member(name, offset, size, self._c_type(member.type))
            elif self._type(self._skip_modifiers(member.type)).kind in (_KIND_STRUCT, _KIND_UNION):
                yield from self._walk(self._skip_modifiers(member.type), offset)

    def _skip_modifiers(self, type_id: int) -> int:
        while (info := self._type(type_id)).kind in _MODIFIERS:
            type_id = info.size_or_type
        return type_id

    def _size(self, type_id: int) -> int:
        type_id = self._skip_modifiers(type_id)
        info = self._type(type_id)
        if info.kind == _KIND_PTR:
            return ctypes.sizeof(ctypes.c_void_p)
        if info.kind == _KIND_ARRAY:
            (array,) = self._trailing(type_id, _Array, 1)
            return self._size(array.type) * int(array.nelems)
        return int(info.size_or_type)

    def _c_type(self, type_id: int) -> str:
        type_id = self._skip_modifiers(type_id) if type_id else 0
        if not type_id:
            return "void"
        info = self._type(type_id)
        if info.kind == _KIND_PTR:
            return f"{self._c_type(info.size_or_type)} *"
        if info.kind == _KIND_STRUCT:
            return f"struct {self._name(info.name_off)}"
        if info.kind in (_KIND_INT, _KIND_ENUM) and info.size_or_type in (1, 2, 4, 8):
            return f"u{8 * info.size_or_type}"
        return "void"
