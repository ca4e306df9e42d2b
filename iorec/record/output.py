# SPDX-License-Identifier: GPL-2.0-only
"""Opens what a recording writes to, before anything is traced."""

import contextlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from analyze.capture_name import SPOOL_SUFFIX, CaptureName
from analyze.errors import IorecError
from analyze.escape import shell_word
from iorec.host.workload import User
from iorec.record.settings import Settings
from iorec.store.folder import Folder, check_free


@dataclass(frozen=True)
class Output:
    """The folder of a capture, and the spool of the first one in it."""

    capture: CaptureName
    folder: Folder
    part: BinaryIO


def default_output(folder: Path, *, has_time: bool = True) -> CaptureName:
    """The name of a capture that begins now, for which none was given; of several without time."""
    time = f"-{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if has_time else ""
    return CaptureName(folder / f"iorec-{platform.node()}{time}.parquet")


@contextlib.contextmanager
def open_output(output: CaptureName, settings: Settings, owner: User | None) -> Iterator[Output]:
    """A new spool, removed at the end if nothing came into it.

    Raises IorecError if a name is taken, by an earlier capture or by a recording.
    """
    is_rotating = settings.limits.is_rotating
    first = output.numbered(1) if is_rotating else output
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(Folder.open(output.path.parent, owner))
        earlier = sorted(filter(output.is_numbered, folder.names())) if is_rotating else []
        for taken in (first.name, first.spool, *earlier):
            if taken.endswith(SPOOL_SUFFIX):
                _refuse_leftover(folder, taken)
            else:
                if taken in earlier and not settings.is_forced:
                    raise IorecError(
                        f"{folder.path / taken} exists, of an earlier recording",
                        "give another name, or replace all of its files with -f/--force",
                    )
                files = CaptureName(Path(taken)).files
                check_free(folder, files, is_forced=settings.is_forced)
        part = folder.create_spool(first.spool)
        stack.callback(_remove_unused, folder, first.spool)
        stack.enter_context(part)  # is closed before: what is locked then is another recorder's
        yield Output(output, folder, part)


def _remove_unused(folder: Folder, part_name: str) -> None:
    """Removes the spool of a recorder that ended, or was killed, before it recorded."""
    if not folder.is_locked(part_name):
        folder.remove_if_empty(part_name)


def _refuse_leftover(folder: Folder, part_name: str) -> None:
    _remove_unused(folder, part_name)
    if folder.exists(part_name):
        raise IorecError(
            f"{folder.path / part_name} exists: a recording runs or was interrupted",
            f"finish it with: iorec recover {shell_word(folder.path / part_name)}",
        )
