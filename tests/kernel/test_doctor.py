# SPDX-License-Identifier: GPL-2.0-only
"""The doctor: what works is found to work, and what is missing has a remedy."""

import json
import subprocess

from iorec.kernel.layers import LAYER_NAMES
from iorec.kernel.offered import lacking_layers
from tests.kernel.conftest import IOREC
from tests.kernel.leftovers import attached_programs


def doctor(*before: str, option: str = "--json") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, str(IOREC), "doctor", option], capture_output=True, text=True, timeout=240
    )


def test_where_recording_works_every_layer_is_loaded_and_gone_again() -> None:
    before = attached_programs()
    done = doctor()
    found = json.loads(done.stdout)
    assert (done.returncode, found["works"]) == (0, True)
    checks = {check["name"]: check for check in found["checks"]}
    assert all(check["is_fine"] for check in checks.values() if check["is_needed"])
    for layer in {*LAYER_NAMES} - lacking_layers().keys():
        assert "programs run" in checks[f"layer {layer}"]["text"]
    assert attached_programs() == before


def test_what_is_missing_has_a_remedy_and_makes_the_status_1() -> None:
    done = doctor("setpriv", "--reuid", "65534", "--clear-groups")
    found = json.loads(done.stdout)
    assert (done.returncode, found["works"], done.stderr) == (1, False, "")
    checks = {check["name"]: check for check in found["checks"]}
    assert "CAP_BPF" in checks["privileges"]["text"]
    assert "sudo" in checks["privileges"]["hint"]
    assert not checks["layer request"]["is_fine"]
    assert all(check["hint"] for check in checks.values() if not check["is_fine"])


def test_the_text_fits_the_terminal() -> None:
    done = doctor("env", "COLUMNS=60", "setpriv", "--reuid", "65534", "--clear-groups", option="-v")
    lines = done.stdout.splitlines()
    assert lines[-1] == "recording does not work"
    assert max(map(len, lines)) <= 60
