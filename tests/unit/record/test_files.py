# SPDX-License-Identifier: GPL-2.0-only
"""How the recorder numbers and names files."""

import stat
from collections.abc import Iterator

import pytest

from iorec.host.inode_paths import FilePaths
from iorec.host.path_finder import FOUND, NUMBER, Inode
from iorec.record import files
from iorec.record.files import Files

DEV = 7 << 20 | 3


@pytest.fixture
def paths() -> Iterator[FilePaths]:
    with FilePaths() as opened:
        opened._is_permitted = True  # whoever runs this: it answers that there is no path
        yield opened


def test_a_file_that_was_forgotten_is_called_by_its_numbers(paths: FilePaths) -> None:
    named = Files(paths)
    count = 200_000
    numbers = [named.number(DEV, inode, 5) for inode in range(1, count + 1)]
    assert numbers == list(range(count))
    assert [named.name(number) for number in (0, count - 1)] == ["7:3:1", f"7:3:{count}"]
    assert len(named._numbers) == len(named._known) < count
    assert named.number(DEV, 1, 5) == count  # its old number is never that of another file


def test_the_oldest_of_a_million_files_have_no_name(
    paths: FilePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_NUMBERS", 1000)
    monkeypatch.setattr(files, "_MOST_BYTES", 500 * files._BYTES_PER_FILE)
    named = Files(paths)
    numbers = [named.number(DEV, inode, 0) for inode in range(1, 10_001)]
    assert named.name(numbers[0]) is None
    assert [named.name(number) for number in numbers[-500:]] == [
        f"7:3:{inode}" for inode in range(9501, 10_001)
    ]


def test_a_file_in_use_keeps_its_name_however_many_others_come(
    paths: FilePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_NUMBERS", 1000)
    monkeypatch.setattr(files, "_MOST_BYTES", 500 * files._BYTES_PER_FILE)
    named = Files(paths)
    number = named.number(DEV, 1, 0)
    for inode in range(2, 10_001):
        named.number(DEV, inode, 0)
        assert named.name(number) == "7:3:1"


def test_a_device_without_a_name_is_a_number(paths: FilePaths) -> None:
    named = Files(paths)
    assert named.name(named.number(4000 << 20 | 1, 0, 0)) == "/dev/block/4000:1"
    assert named.number(0, 0, 0) == -1


def test_pipes_sockets_and_character_devices_are_no_files(
    paths: FilePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 500 * files._BYTES_PER_FILE)
    named = Files(paths)
    asked = [
        (0, stat.S_IFIFO, "pipe"),
        (0, stat.S_IFSOCK, "socket"),
        (1 << 20 | 3, stat.S_IFCHR, "char:/dev/null"),
        (136 << 20 | 7, stat.S_IFCHR, "char:/dev/pts/7"),
        (4000 << 20 | 1, stat.S_IFCHR, "char:4000:1"),
    ]
    numbers = [named.number(dev, 0, kind) for dev, kind, _ in asked]
    assert len(set(numbers)) == len(asked)
    assert [named.name(number) for number in numbers] == [name for *_, name in asked]
    assert [named.number(dev, 0, kind) for dev, kind, _ in asked] == numbers
    for inode in range(1, 1000):
        named.number(DEV, inode, 0)
    assert [named.name(number) for number in numbers][:2] == ["pipe", "socket"]
    assert named.name(numbers[2]) == "char:1:3"  # its path was forgotten


ASKED: Inode = (DEV, 1, 2)
OTHER: Inode = (DEV, 9, 9)


def found(inode: Inode, path: bytes, length: int | None = None) -> bytes:
    return FOUND.pack(*inode, len(path) if length is None else length) + path


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        NUMBER.pack(0),
        NUMBER.pack(7) + found(ASKED, b"/a"),
        NUMBER.pack(0) + found(ASKED, b"/a")[:-1],
        NUMBER.pack(0) + found(ASKED, b"/a", 2**31 - 1),
        NUMBER.pack(0) + found(ASKED, b"/a", -(2**31)) + b"\xff" * 100,
        NUMBER.pack(0) + found(OTHER, b"/a"),
        b"\xff" * 60_000,
    ],
)
def test_an_answer_that_is_cut_or_strange_is_no_error(paths: FilePaths, answer: bytes) -> None:
    paths.ask([ASKED])
    assert [path for _, path in paths._found_in(answer) if path is not None] == []


def test_an_answer_has_a_path_of_any_bytes(paths: FilePaths) -> None:
    paths.ask([ASKED])
    path = bytes(range(1, 256)) * 16
    assert list(paths._found_in(NUMBER.pack(0) + found(ASKED, path))) == [(ASKED, path)]
    assert list(paths._found_in(NUMBER.pack(0) + found(ASKED, path))) == []
