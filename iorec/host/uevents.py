# SPDX-License-Identifier: GPL-2.0-only
"""Listens to what the kernel says about block devices that come, change and go."""

import contextlib
import errno
import socket
from dataclasses import dataclass

from iorec.host.escape import escape_name

# include/uapi/linux/netlink.h; the kernel's own messages are those of group 1.
_NETLINK_KOBJECT_UEVENT = 15
_GROUP_KERNEL = 1
_LARGEST_MESSAGE = 1 << 13  # UEVENT_BUFFER_SIZE is 2 KiB
_ROOM_BYTES = 8 << 20  # some ten thousand messages, as far as the system grants it


@dataclass(frozen=True)
class DiskEvent:
    """`add`, `change` or `remove` of a whole disk; `dev` is the kernel's dev_t."""

    action: str
    dev: int
    name: str


class DiskEvents:
    """An open socket that takes the events; no privilege is needed."""

    def __init__(self) -> None:
        """Raises OSError where there is no such socket."""
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, _NETLINK_KOBJECT_UEVENT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM_BYTES)
        self._socket.bind((0, _GROUP_KERNEL))

    def read(self) -> tuple[list[DiskEvent], bool]:
        """Reads what came since the last time; also whether more came than there was room for."""
        events: list[DiskEvent] = []
        has_overflowed = False
        while True:
            try:
                message, (sender, _) = self._socket.recvfrom(_LARGEST_MESSAGE)
            except BlockingIOError:
                return events, has_overflowed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                has_overflowed = True
                continue
            if sender == 0 and (event := parse_event(message)) is not None:
                events.append(event)


def parse_event(message: bytes) -> DiskEvent | None:
    """A message of the kernel; None if it is about anything but a whole disk."""
    fields = dict(field.partition(b"=")[::2] for field in message.split(b"\0"))
    if fields.get(b"SUBSYSTEM") != b"block" or fields.get(b"DEVTYPE") != b"disk":
        return None
    with contextlib.suppress(KeyError, ValueError):
        dev = int(fields[b"MAJOR"]) << 20 | int(fields[b"MINOR"])
        return DiskEvent(fields[b"ACTION"].decode(), dev, escape_name(fields[b"DEVNAME"]))
    return None
