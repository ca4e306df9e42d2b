# SPDX-License-Identifier: GPL-2.0-only
"""The server of pages, and clients that are slow, greedy or wrong."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from iorec.live import web
from iorec.live.listen import listen_at
from iorec.live.web import Page, start_serving

LARGE = 4 << 20


def pages(path: str, head: bytes) -> Page | None:
    del head
    return {"/": Page("text/plain", b"hello"), "/large": Page("text/plain", bytes(LARGE))}.get(path)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(web, "_PATIENCE_S", 1.0)
    listener = listen_at("127.0.0.1:0")
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(start_serving(listener, pages))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def ask(port: int, request: bytes = b"GET / HTTP/1.1\r\n\r\n") -> bytes:
    """What is answered until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", b"200 OK"),
        (b"GET /?query=1 HTTP/1.0", b"200 OK"),
        (b"GET /other HTTP/1.1", b"404 Not Found"),
        (b"POST / HTTP/1.1", b"405 Method Not Allowed"),
        (b"GET /", b"400 Bad Request"),
        (b"\xff\xfe\x00", b"400 Bad Request"),
        (b"", b"400 Bad Request"),
    ],
)
def test_a_request_has_an_answer(port: int, request_line: bytes, status: bytes) -> None:
    answer = ask(port, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert b"Connection: close" in head


def test_a_large_page_arrives_whole(port: int) -> None:
    assert ask(port, b"GET /large HTTP/1.1\r\n\r\n").endswith(bytes(LARGE))


def test_a_head_that_does_not_end_is_refused(port: int) -> None:
    endless = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * web._MOST_HEAD_BYTES
    # No more than is read: what is left when a socket is closed resets the connection.
    assert ask(port, endless[: web._MOST_HEAD_BYTES + 8]).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_writes_a_byte_now_and_then_is_sent_away(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        begun = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < begun + 10:
                client.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - begun < 5


def test_a_client_that_never_reads_is_sent_away(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        time.sleep(2)
        assert len(read_all(client)) < LARGE


def test_others_are_served_beside_clients_that_hang_until_there_are_too_many(port: int) -> None:
    hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(web._MOST_CLIENTS - 1)]
    assert ask(port).endswith(b"hello")
    hanging.append(socket.create_connection(("127.0.0.1", port)))
    assert ask(port) == b""
    time.sleep(1.5)
    assert ask(port).endswith(b"hello")
    for client in hanging:
        client.close()
