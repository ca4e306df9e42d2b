# SPDX-License-Identifier: GPL-2.0-only
"""Opens the socket on which metrics are served, while there is nobody yet who serves them."""

import os
import socket

from analyze.errors import IorecError

_FORMS = "127.0.0.1:9435, [::1]:9435, or [::]:9435 for every network"


def listen_at(address: str) -> socket.socket:
    """A socket that listens at HOST:PORT; port 0 is one that is free, [::] is IPv4 as well."""
    host, port = _parse(address)
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise _nonsense(address, f"there is no host {host}") from error
    try:
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(where, family=family, dualstack_ipv6=is_dual)
    except OSError as error:
        raise IorecError(
            f"cannot listen on {address}: {os.strerror(error.errno or 0)}",
            f"choose another address or port with --listen: {_FORMS}",
        ) from error


def url_of(listener: socket.socket) -> str:
    """Where the socket listens, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _parse(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _nonsense(address, "an IPv6 address is written in brackets")
    if not (colon and host):
        raise _nonsense(address, "it is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 1 << 16):
        raise _nonsense(address, "its port is not a number from 0 to 65535")
    return host, int(port)


def _nonsense(address: str, why: str) -> IorecError:
    return IorecError(f"cannot listen on {address!r}: {why}", f"write --listen {_FORMS}", 2)
