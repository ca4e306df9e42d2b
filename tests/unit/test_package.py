# SPDX-License-Identifier: GPL-2.0-only
"""The package: its licence, its types and the names that it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

import analyze
import iorec

ROOT = Path(__file__).parents[2]
SOURCES = (".py", ".sh", ".c", ".h", ".bt", ".fio")


def test_every_source_names_its_licence_in_its_first_lines() -> None:
    folders = ("analyze", "bpf", "iorec", "samples", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    sources = [path for path in sources if path.suffix in SOURCES]
    assert len(sources) > 100
    for path in (*sources, ROOT / "Makefile", ROOT / "pyproject.toml"):
        head = path.read_text().split("\n")[:2]
        assert any("SPDX-License-Identifier: GPL-2.0-only" in line for line in head), path


def test_the_packages_say_that_they_are_typed() -> None:
    for package in ("iorec", "analyze"):
        assert (ROOT / package / "py.typed").exists()


def test_every_promised_name_is_there() -> None:
    assert all(getattr(analyze, name) for name in analyze.__all__)
    assert not hasattr(analyze, "Kapture")


def test_iorec_opens_captures_as_analyze_does() -> None:
    assert iorec.open is analyze.open
    assert iorec.IorecError is analyze.IorecError
    assert set(iorec.__all__) < set(dir(iorec))


@pytest.mark.parametrize("package", ["analyze", "iorec"])
def test_the_import_loads_nothing_heavy(package: str) -> None:
    heavy = "{'duckdb', 'matplotlib', 'numpy', 'pandas', 'polars', 'pyarrow'}"
    program = f"import sys, {package}; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
