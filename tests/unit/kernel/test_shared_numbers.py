# SPDX-License-Identifier: GPL-2.0-only
"""What C and Python both must know: each number of bpf/ against its twin in iorec/."""

import ctypes
import re
from typing import Any

import numpy as np
import pytest

from iorec.kernel import calls, layouts, probes
from iorec.kernel.comm_glob import LONGEST_NAME, glob_masks
from iorec.kernel.compile import BPF_FOLDER
from iorec.kernel.layers import AIO, BIO, LAYER_NAMES, LAYERS, REQUEST, SYSCALL, URING, WAIT
from iorec.kernel.names import OP_CACHE_FLUSH
from iorec.kernel.plan import (
    SLOTS_PER_BUCKET,
    KernelFilter,
    Plan,
    cached_identities,
    gap_ns,
    gap_rows,
)
from iorec.record import filters, ledger
from iorec.store import rows

TYPES: dict[str, Any] = {
    "u64": ctypes.c_uint64,
    "u32": ctypes.c_uint32,
    "u16": ctypes.c_uint16,
    "u8": ctypes.c_uint8,
    "char": ctypes.c_char,
}
EVERY_COPY = Plan(KernelFilter(), LAYER_NAMES, 1 << 24, 1 << 13, is_preemptible=True)


def source(name: str) -> str:
    """A file of bpf/ without its comments."""
    text = (BPF_FOLDER / name).read_text()
    return re.sub(r"/\*.*?\*/|//.*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def defined(file: str, name: str) -> int:
    """The number that a macro stands for."""
    (words,) = re.findall(rf"^#define {name} (.+)$", source(file), re.MULTILINE)
    assert re.fullmatch(r"[()~<\w ]+", words), words
    bits = 64 if "ULL" in words else 32
    return int(eval(re.sub(r"(?<=[0-9a-f])U(LL)?\b", "", words))) % (1 << bits)


def structs(file: str) -> dict[str, type[ctypes.Structure]]:
    """The structs of a file, each laid out as C does."""
    found: dict[str, type[ctypes.Structure]] = {}
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", source(file), re.M | re.DOTALL):
        # A union has one name for each that may use it, and Python the first one.
        body = re.sub(r"union \{\s*([^;]+;).*?\};", r"\1", body, flags=re.DOTALL)
        fields = []
        for kind, field, length in re.findall(r"(?:struct )?(\w+) (\w+)(?:\[(\w+)\])?;", body):
            c_type = TYPES[kind] if kind in TYPES else found[kind]
            count = int(length) if length.isdigit() else length and defined(file, length)
            fields.append((field, c_type * count if count else c_type))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


def bit_of(flag: str) -> int:
    """The bit of a flag of system calls."""
    (bit,) = (bit for bit, name in calls.CALL_FLAGS.items() if name == flag)
    return bit


TWINS = [
    ("records.h", "REQUEST_LAYER", REQUEST.number),
    ("records.h", "BIO_LAYER", BIO.number),
    ("records.h", "NO_ISSUE", layouts.NO_ISSUE),
    ("records.h", "NO_IDENTITY", layouts.NO_IDENTITY),
    ("records.h", "LOST_IDENTITY", layouts.LOST_IDENTITY),
    ("records.h", "IS_AWAKE", layouts.IS_AWAKE),
    ("records.h", "OP_CACHE_FLUSH", OP_CACHE_FLUSH),
    ("records.h", "SYSCALL_LAYER", SYSCALL.number),
    ("records.h", "FIRST_CALL_OP", calls.FIRST_CALL_OP),
    ("records.h", "URING_LAYER", URING.number),
    ("records.h", "AIO_LAYER", AIO.number),
    ("records.h", "WAIT_LAYER", WAIT.number),
    ("records.h", "OP_BLOCKED", min(calls.WAIT_OPS)),
    ("records.h", "OP_PREEMPTED", max(calls.WAIT_OPS)),
    ("records.h", "FIRST_AIO_OP", calls.FIRST_AIO_OP),
    ("records.h", "FIRST_URING_OP", calls.FIRST_URING_OP),
    ("records.h", "CALL_FLAGS_SHIFT", bit_of("fixed_file")),
    ("records.h", "CALL_SQPOLL", 1 << bit_of("sqpoll")),
    ("records.h", "NEVER_QUEUED", layouts.NEVER_QUEUED),
    ("records.h", "CALL_RESTARTED", 1 << bit_of("restarted")),
    ("records.h", "CALL_NOWAIT", 1 << bit_of("nowait")),
    ("records.h", "NO_OFFSET", rows.NO_OFFSET),
    ("syscall.c", "MOST_CALLS", calls._MOST_CALLS),
    ("syscall.c", "NOWHERE", calls._NOWHERE),
    ("syscall.c", "IN_FILE", calls._POSITION),
    ("syscall.c", "IN_RESULT", calls._RESULT),
    ("syscall.c", "IS_VECTOR", calls._VECTOR),
    ("syscall.c", "IS_WRITE", calls._WRITE),
    ("syscall.c", "IS_WRITE_OF_VECTOR", calls._WRITE | calls._VECTOR),
    ("syscall.c", "IS_MAPPING", calls._MAPPING),
    ("records.h", "SLOTS_PER_BUCKET", SLOTS_PER_BUCKET),
    ("records.h", "MOST_COPIES", max(map(EVERY_COPY.copy_count, EVERY_COPY.programs))),
    ("filter.c", "LAST_STATE", 1 << LONGEST_NAME),
]
IN_C = structs("records.h")
# The others are the kernel's alone, or stand in one of these.
SHARED = sorted(IN_C.keys() - {"cached_identity", "tally_bucket"})


@pytest.mark.parametrize("name", SHARED)
def test_every_field_is_read_where_the_kernel_programs_write_it(name: str) -> None:
    struct, dtype = IN_C[name], getattr(layouts, name.upper())
    places = {field: getattr(struct, field) for field, *_ in struct._fields_}
    in_c = {field: (place.offset, place.size) for field, place in places.items()}
    in_python = {field: (kind[1], kind[0].itemsize) for field, kind in dtype.fields.items()}
    assert in_c == in_python
    assert ctypes.sizeof(struct) == dtype.itemsize


def test_every_struct_that_both_know_is_compared() -> None:
    dtypes = {name.lower() for name, value in vars(layouts).items() if isinstance(value, np.dtype)}
    assert dtypes == set(SHARED)


@pytest.mark.parametrize(("file", "name", "number"), TWINS)
def test_a_macro_has_the_value_that_python_takes_for_it(file: str, name: str, number: int) -> None:
    assert defined(file, name) == number


def test_there_are_numbers_for_more_calls_and_opcodes_than_there_are() -> None:
    assert max(calls.CALL_OPS) + 13 < min(calls.WAIT_OPS) < calls.FIRST_AIO_OP
    assert calls.FIRST_URING_OP + 64 + 31 <= 0xFF  # of 65 in Linux 6.19


def test_every_macro_of_the_shared_header_is_compared() -> None:
    macros = set(re.findall(r"^#define (\w+)", source("records.h"), re.M))
    assert macros - {name for _, name, _ in TWINS} == {"TALLIES_PER_BUCKET"}  # with TALLY_BUCKETS


@pytest.mark.parametrize("cpus", [1, 2, 4, 24, 32, 33, 96, 256, 1024, 8192])
def test_the_gaps_of_a_lane_last_for_longer_than_the_recorder_looks_away(cpus: int) -> None:
    assert gap_rows(cpus) * gap_ns(cpus) >= 1.2e9
    assert gap_rows(cpus) * cpus <= max(4096, 16 * cpus)
    assert cached_identities(cpus) * cpus <= 65536
    assert cached_identities(cpus).bit_count() == 1


def test_the_maps_have_the_sizes_that_python_takes_for_theirs() -> None:
    per_cpu = defined("ledger.c", "TALLY_BUCKETS") * defined("records.h", "TALLIES_PER_BUCKET")
    assert per_cpu == probes._TALLIES_PER_CPU
    sizes = dict(re.findall(r"BPF_HASH\((\w+), [\w ]+, u8, (\d+)\);", source("filter.c")))
    assert int(sizes["filter_device"]) == filters._MOST_DEVICES
    assert int(sizes["filter_comm"]) == filters._MOST_COMMS
    assert int(sizes["filter_pid"]) == filters._MOST_PIDS
    assert len(glob_masks("*")) == ctypes.sizeof(structs("filter.c")["comm_glob"])


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_each_layer_has_the_programs_that_its_file_defines(layer: Any) -> None:
    programs = set(re.findall(r"^int (\w+)\(u64 \*ctx\)", source(f"{layer.name}.c"), re.M))
    assert programs == set(layer.programs)
    assert programs >= {layer.start, *layer.complete}


def test_every_program_counts_in_a_lane_of_its_own() -> None:
    texts = "".join(source(path.name) for path in sorted(BPF_FOLDER.glob("*.c")))
    used = set(re.findall(r"\b(\w+)_LANE\b", texts))
    assert used == {name.upper() for name in EVERY_COPY.lanes}
    lanes = [lane for lanes in EVERY_COPY.lanes.values() for lane in lanes]
    assert lanes == list(range(len(lanes)))


def test_every_filter_of_the_programs_is_set_by_a_macro_of_its_name() -> None:
    everything = KernelFilter(
        devices=((1, None),),
        pids=(1,),
        comms=("a",),
        comm_globs=("a*",),
        cgroup_folders=("/a",),
        ops=(1, OP_CACHE_FLUSH),
        min_latency_ns=1,
        excluded_pid=1,
        pid_namespace=(1, 2),
    )
    text = source("filter.c")
    asked = set(re.findall(r"(?:^#ifdef |defined\()(\w+)", text, re.M))
    macros = everything.defines().keys()
    assert asked <= macros
    assert macros == {name for name in macros if re.search(rf"\b{name}\b", text)}
    assert KernelFilter().defines() == {}
    (mask,) = re.findall(r"FILTER_OPS >> \(cmd_flags & (\d+)\)", text)
    assert OP_CACHE_FLUSH & int(mask) == OP_CACHE_FLUSH
    assert everything.defines()["FILTER_OPS"] == "0x4000000000000002ULL"


def test_the_number_of_an_identity_has_room_for_every_copy_of_a_program() -> None:
    copies = defined("records.h", "MOST_COPIES")
    assert copies << defined("owner.c", "COPY_SHIFT") == 1 << 8 * IN_C["record"].identity.size


def test_a_tally_is_booked_for_the_layer_device_and_operation_of_its_key() -> None:
    (words,) = re.findall(r"u64 key = 1ULL << 63 \| (.+);", source("ledger.c"))
    shifts = re.findall(r"\(u64\)(\w+) << (\d+)", words)
    parts = {"layer": BIO.number, "dev": 8 << 20 | 16}
    key = OP_CACHE_FLUSH | sum(parts[name] << int(shift) for name, shift in shifts)
    assert ledger._place(key) == ("bio", 8 << 20 | 16, OP_CACHE_FLUSH)


def test_every_counter_of_a_tally_is_booked() -> None:
    counters = {field for field, *_ in IN_C["tally"]._fields_} - {"key", "padding"}
    sizes = {f"{kind}_bytes" for kind in ledger._TALLY_KINDS}
    assert counters == {*ledger._TALLY_KINDS, *sizes, *ledger._EVENTS}


def test_a_record_with_its_header_is_one_cache_line_and_an_announcement_two() -> None:
    assert layouts.RECORD.itemsize + 8 == layouts.SLOT.itemsize == 64
    assert layouts.ANNOUNCEMENT.itemsize + 8 == 2 * 64
    # Where the header of a second record would be.
    assert IN_C["identity"].record_bytes.offset + 8 == 64
