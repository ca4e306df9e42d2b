# SPDX-License-Identifier: GPL-2.0-only
"""The address that metrics are served at."""

import socket

import pytest

from analyze.errors import IorecError
from iorec.live.listen import listen_at, url_of


def test_a_port_of_each_family_is_opened_and_named() -> None:
    for address, url in (
        ("127.0.0.1:0", "http://127.0.0.1:"),
        ("0.0.0.0:0", "http://0.0.0.0:"),
        ("[::1]:0", "http://[::1]:"),
    ):
        with listen_at(address) as listener:
            assert url_of(listener).startswith(url)
            socket.create_connection(listener.getsockname()[:2], timeout=5).close()


@pytest.mark.parametrize(
    "address",
    ["", "9435", ":9435", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[]:9435",
     "127.0.0.1:-1", "127.0.0.1:9435/metrics", "::1:9435", "[::1]", "no such host:9435",
     "127.0.0.1:\u0663", "a" * 300 + ":9435"],
)  # fmt: skip
def test_what_is_no_address_is_a_wrong_option(address: str) -> None:
    with pytest.raises(IorecError) as raised:
        listen_at(address)
    assert raised.value.exit_code == 2
    assert "--listen" in raised.value.hint


def test_a_port_in_use_and_an_address_of_another_machine_are_errors() -> None:
    with listen_at("127.0.0.1:0") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(IorecError, match=f"127.0.0.1:{port}: Address already in use") as raised:
            listen_at(f"127.0.0.1:{port}")
    assert raised.value.exit_code == 1
    with pytest.raises(IorecError, match="Cannot assign requested address"):
        listen_at("192.0.2.1:9435")
    with listen_at(f"127.0.0.1:{port}"):
        pass  # it is free again


def test_every_network_of_ipv6_is_every_one_of_ipv4_too() -> None:
    with listen_at("[::]:0") as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()
