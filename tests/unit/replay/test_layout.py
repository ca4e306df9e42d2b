# SPDX-License-Identifier: GPL-2.0-only
"""What the loop in C and Python share: the struct, the numbers, and the buckets of lateness."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iorec.replay import layout
from iorec.replay.layout import Ending, Pace, bucket_of, most_in_bucket
from iorec.replay.native import find_compiler

SOURCE = Path(layout.__file__).with_name("pace.c")


def test_the_struct_is_that_of_the_c_file(tmp_path: Path) -> None:
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("there is no C compiler")
    names = [name for name, *_ in Pace._fields_]
    prints = "".join(f'printf("%zu\\n", offsetof(struct pace, {name}));' for name in names)
    program = tmp_path / "offsets.c"
    program.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{SOURCE}"\n'
        f'int main(void) {{ {prints} printf("%zu\\n", sizeof(struct pace)); }}\n'
    )
    subprocess.run([compiler, "-o", tmp_path / "offsets", program], check=True)
    printed = subprocess.check_output([tmp_path / "offsets"], text=True).split()
    expected = [getattr(Pace, name).offset for name in names]
    assert list(map(int, printed)) == [*expected, ctypes.sizeof(Pace)]


def test_the_numbers_are_those_of_the_c_file() -> None:
    text = SOURCE.read_text()
    defined = dict(re.findall(r"^#define (\w+) \(?(-?\d+)\)?", text, re.MULTILINE))
    shared = defined.keys() & vars(layout).keys()
    assert len(shared) > 5
    assert {name: int(defined[name]) for name in shared} == {
        name: getattr(layout, name) for name in shared
    }
    for line in re.findall(r"^enum \{ (.*?) \};", text, re.MULTILINE):
        for number, name in enumerate(line.split(", ")):
            known = Ending[name] if name in Ending.__members__ else getattr(layout, name)
            assert known == number


@pytest.mark.parametrize("late_ns", [0, 1, 15, 16, 31, 32, 33, 999, 100_000, 10**9, 2**62])
def test_a_bucket_holds_what_is_put_into_it_to_a_sixteenth(late_ns: int) -> None:
    bucket = bucket_of(late_ns)
    assert bucket < layout.BUCKETS
    assert late_ns <= most_in_bucket(bucket) <= late_ns + max(late_ns // 16, 0)
    assert bucket_of(most_in_bucket(bucket)) == bucket
    assert bucket_of(most_in_bucket(bucket) + 1) == bucket + 1


def test_nothing_that_starts_threads_is_imported_before_privileges_are_dropped() -> None:
    program = (
        "import sys, iorec.commands.replay, iorec.replay.session, iorec.replay.words;"
        "print({'duckdb', 'numpy', 'pyarrow'} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
