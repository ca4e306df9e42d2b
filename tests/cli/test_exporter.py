# SPDX-License-Identifier: GPL-2.0-only
"""What keeps `iorec exporter` from starting, before anything is traced and without root."""

import re
import subprocess
import sys

from iorec.live.listen import listen_at


def run_exporter(*options: str, before: str = "pass") -> subprocess.CompletedProcess[str]:
    program = f"import sys; {before}; from iorec.cli import main; main()"
    command = [sys.executable, "-c", program, "exporter", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_bad_address_is_a_wrong_option() -> None:
    done = run_exporter("--listen", "localhost")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: cannot listen on 'localhost': it is not HOST:PORT\n"
        "hint: write --listen 127.0.0.1:9435, [::1]:9435, or [::]:9435 for every network\n"
    )


def test_a_port_in_use_is_one_error() -> None:
    with listen_at("127.0.0.1:0") as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        done = run_exporter("--listen", address)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == f"error: cannot listen on {address}: Address already in use"
    assert hint.startswith("hint: choose another address or port with --listen: ")


def test_without_its_package_the_hint_is_the_command_that_installs_it() -> None:
    done = run_exporter(before="sys.modules['prometheus_client'] = None")
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == "error: the exporter needs the Python package prometheus_client"
    command = re.fullmatch(r"hint: install it: (\S+) -m pip install prometheus_client", hint)
    assert command
    assert command[1] == sys.executable
