# SPDX-License-Identifier: GPL-2.0-only
"""Serves pages over HTTP to clients that nobody trusts: few at once, each for a short time."""

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

_MOST_CLIENTS = 8  # who comes when there are as many is sent away
_MOST_HEAD_BYTES = 8 << 10
_PATIENCE_S = 5.0  # for a whole request and its answer


class Page(NamedTuple):
    """A document and its media type."""

    kind: str
    text: bytes


# Of a path and the head of the request; None: there is no such page.
Pages = Callable[[str, bytes], Page | None]


async def start_serving(listener: socket.socket, pages: Pages) -> asyncio.Server:
    """Answers who connects, one request each, until the server is closed."""
    places = asyncio.Semaphore(_MOST_CLIENTS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not places.locked():
                async with places, asyncio.timeout(_PATIENCE_S):
                    await _serve(reader, writer, pages)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # it has gone, or is too slow
        finally:
            writer.transport.abort()

    return await asyncio.start_server(serve, sock=listener, limit=_MOST_HEAD_BYTES)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        writer.write(_failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
    else:
        writer.write(_answer(head, pages))
    writer.close()
    await writer.wait_closed()  # sent, or the connection is lost


def _answer(head: bytes, pages: Pages) -> bytes:
    method, _, rest = head.partition(b" ")
    path, _, version = rest.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1."):
        return _failure(HTTPStatus.BAD_REQUEST)
    if method != b"GET":
        return _failure(HTTPStatus.METHOD_NOT_ALLOWED)
    page = pages(path.partition(b"?")[0].decode("latin-1"), head)
    return _failure(HTTPStatus.NOT_FOUND) if page is None else _response(HTTPStatus.OK, page)


def _failure(status: HTTPStatus) -> bytes:
    return _response(status, Page("text/plain", f"{status.phrase}\n".encode()))


def _response(status: HTTPStatus, page: Page) -> bytes:
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {page.kind}",
        f"Content-Length: {len(page.text)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + page.text
