# SPDX-License-Identifier: GPL-2.0-only
"""Compiled programs are taken from the cache only if nobody else can have written them."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from iorec.kernel import compile as compiling
from iorec.kernel import kept
from iorec.kernel.compiled import Compiled, Map, Program

MADE = Compiled(
    (Map("records", 27, 0, 0, 4096, 0), Map("control", 2, 4, 40, 1, 1024)),
    {"rq_start": Program(7, "GBAAAAEAAAAAAAAAAAAAAJUAAAAAAAAA", (4,))},
)


class Compiler:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> Compiled:
        self.runs += 1
        return MADE


def kept_for(basis: list[str], make: Callable[[], Compiled]) -> Compiled:
    return kept.kept(Compiled, basis, make)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "iorec")
    monkeypatch.setattr(kept, "OWNER", os.geteuid())
    return Compiler()


def entry() -> Path:
    (found,) = kept.FOLDER.iterdir()
    return found


def test_what_was_compiled_once_is_not_compiled_again(compiler: Compiler) -> None:
    assert [kept_for(["a", "b"], compiler) for _ in range(3)] == [MADE] * 3
    assert compiler.runs == 1


def test_other_texts_are_other_programs(compiler: Compiler) -> None:
    for basis in (["a", "b"], ["ab", ""], ["ab"], ["b", "a"]):
        kept_for(basis, compiler)
    assert compiler.runs == 4


@pytest.mark.parametrize("changed", ["records.h", "owner.c", "include/linux/types.h"])
def test_each_source_counts_also_if_it_is_only_included(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    folder = tmp_path / "bpf"
    shutil.copytree(compiling.BPF_FOLDER, folder)
    monkeypatch.setattr(compiling, "BPF_FOLDER", folder)
    kept_for(compiling.source_texts(), compiler)
    with (folder / changed).open("a") as source:
        source.write("#define OTHER 1\n")
    kept_for(compiling.source_texts(), compiler)
    assert compiler.runs == 2


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def writable(path: Path) -> None:
    path.chmod(0o664)


def of_another_key(path: Path) -> None:
    kept_for(["another"], lambda: MADE)
    other = next(one for one in path.parent.iterdir() if one != path)
    other.rename(path)


def a_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def in_a_folder_of_all(path: Path) -> None:
    path.parent.chmod(0o777)


def in_a_folder_that_is_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("real"))
    path.parent.symlink_to(path.parent.with_name("real"))


@pytest.mark.parametrize(
    "attack",
    [
        damaged,
        cut,
        emptied,
        writable,
        of_another_key,
        a_link,
        a_pipe,
        in_a_folder_of_all,
        in_a_folder_that_is_a_link,
    ],
)
def test_an_entry_that_cannot_be_trusted_is_compiled_anew(
    compiler: Compiler, attack: Callable[[Path], None]
) -> None:
    kept_for([], compiler)
    attack(entry())
    assert kept_for([], compiler) == MADE
    assert compiler.runs == 2


def test_an_entry_of_another_user_is_compiled_anew(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_for([], compiler)
    monkeypatch.setattr(kept, "OWNER", os.geteuid() + 1)
    kept_for([], compiler)
    assert compiler.runs == 2


def test_a_damaged_entry_is_replaced(compiler: Compiler) -> None:
    kept_for([], compiler)
    damaged(entry())
    for _ in range(2):
        kept_for([], compiler)
    assert compiler.runs == 2


def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FOLDER", Path("/proc/iorec"))
    assert [kept_for([], compiler) for _ in range(2)] == [MADE] * 2
    assert compiler.runs == 2


def test_nothing_is_left_of_an_entry_for_which_there_is_no_room(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fchmod", refuse)
    assert kept_for([], compiler) == MADE
    assert not list(kept.FOLDER.iterdir())


def test_the_oldest_entries_go(compiler: Compiler) -> None:
    for number in range(40):
        kept_for([str(number)], compiler)
    assert len(list(kept.FOLDER.iterdir())) == kept.MOST_ENTRIES
    kept_for(["39"], compiler)
    assert compiler.runs == 40


def test_a_program_is_linked_to_maps_and_marks() -> None:
    code = MADE.programs["rq_start"].linked([5, 9], {0x95: 0x42})
    assert code.hex(" ", 8).split() == ["1810000009000000", "0000000000000000", "4200000000000000"]
