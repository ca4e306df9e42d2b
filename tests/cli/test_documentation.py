# SPDX-License-Identifier: GPL-2.0-only
"""Man pages and completions: made of every command and option, installed and removed again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iorec.documentation.__main__ import documents
from iorec.documentation.definition import read_commands
from iorec.documentation.notebook import run_notebook
from iorec.documentation.wings import draw_wings, floors_of, read_wings

ROOT = Path(__file__).parents[2]
BASH = "share/bash-completion/completions/iorec"
ZSH = "share/zsh/site-functions/_iorec"
FISH = "share/fish/vendor_completions.d/iorec.fish"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    subprocess.run([sys.executable, "-m", "iorec.documentation", folder], cwd=ROOT, check=True)
    return folder


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def test_every_command_has_a_page_with_every_option_that_its_help_shows() -> None:
    made = documents()
    commands = read_commands()
    assert {"record", "report", "plot", "info", "recover"} <= {command.name for command in commands}
    for command in commands:
        page = made[f"share/man/man1/iorec-{command.name}.1"].replace("\\-", "-")
        usage = run(sys.executable, "-m", "iorec", command.name, "--help")
        options = re.findall(r"^  (?:(-\w), )?(--[\w-]+)", usage, re.MULTILINE)
        assert len(options) > 2
        for name in filter(None, (name for names in options for name in names)):
            assert f"\\fB{name}\\fR" in page, (command.name, name)
        for line in command.examples:
            assert line in page
    assert "\nCAPTURE...\n" in made["share/man/man1/iorec-info.1"].replace("[OPTIONS] ", "")


def test_groff_has_nothing_to_say_about_the_pages(prefix: Path) -> None:
    needs("groff")
    for page in (prefix / "share/man/man1").iterdir():
        assert "EXIT STATUS" in run("groff", "-ww", "-man", "-Tascii", "-P-cbou", page)


def complete_in_bash(prefix: Path, *words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        f". {prefix / BASH}; compopt() {{ :; }}; COMP_WORDS=({quoted});"
        f" COMP_CWORD={len(words) - 1}; _iorec; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    return run("bash", "--norc", "-c", program).split()


def test_bash_completes_commands_options_and_values(prefix: Path) -> None:
    assert complete_in_bash(prefix, "iorec", "rec") == ["record", "recover"]
    assert complete_in_bash(prefix, "iorec", "plot", "--ki") == ["--kind"]
    assert complete_in_bash(prefix, "iorec", "plot", "--kind", "heat") == ["heatmap"]
    assert complete_in_bash(prefix, "iorec", "plot", "--kind", "=") > ["cdf"]
    assert complete_in_bash(prefix, "iorec", "report", "--by", "own") == ["owner"]
    assert complete_in_bash(prefix, "iorec", "report", "run") == []  # bash goes on with files
    assert "sleep" in complete_in_bash(prefix, "iorec", "record", "--", "slee")


def test_fish_completes_commands_options_and_values(prefix: Path) -> None:
    needs("fish")

    def complete(line: str) -> list[str]:
        program = f"source {prefix / FISH}; complete -C '{line}'"
        found = run("fish", "--no-config", "-c", program).splitlines()
        return [candidate.split("\t")[0] for candidate in found]

    assert complete("iorec rec") == ["record", "recover"]
    assert complete("iorec plot --ki") == ["--kind"]
    assert complete("iorec plot --kind heat") == ["heatmap"]
    assert "sleep" in complete("iorec record -- slee")


def test_zsh_completes_commands_options_and_values(prefix: Path) -> None:
    needs("zsh")

    # A terminal of its own, in which the keys are typed: nothing else runs a completion.
    folder = (prefix / ZSH).parent
    program = f"""
        zmodload zsh/zpty
        zpty iorec zsh -f -i
        zpty -w iorec 'fpath=({folder} $fpath); autoload -U compinit; compinit -u -D'
        zpty -w iorec "print re''ady"
        zpty -r iorec out '*ready*'
        zpty -w -n iorec $'iorec plot --kind heat\\t'
        zpty -r iorec out '*map*'
        zpty -w -n iorec $'\\C-uiorec record --strict --min-la\\t'
        zpty -r iorec out '*tency*'
        print -r -- $out
    """
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, timeout=60)
    assert "tency" in done.stdout, done.stderr


def make(prefix: Path, goal: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-o", "environment", goal, f"PREFIX={prefix}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_install_puts_iorec_on_the_path_and_uninstall_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        done = make(tmp_path, "install")
        assert done.returncode == 0, done.stderr
    assert run(tmp_path / "bin/iorec", "--version").startswith("iorec ")
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()}
    assert files == {"bin/iorec", *documents()}
    others = tmp_path / "share/man/man1/iorec-other.1"
    others.write_text("another program's\n")
    assert make(tmp_path, "uninstall").returncode == 0
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == [others]


def test_the_service_is_installed_on_its_own_and_is_one(tmp_path: Path) -> None:
    assert make(tmp_path, "install-service").returncode == 0
    unit = tmp_path / "lib/systemd/system/iorec-flight.service"
    text = unit.read_text()
    assert f"ExecStart={tmp_path}/bin/iorec record -o /var/lib/iorec/" in text
    if shutil.which("systemd-analyze") is not None:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert make(tmp_path, "uninstall").returncode == 0
    assert not unit.exists()


def test_install_replaces_another_copy_but_no_other_program(tmp_path: Path) -> None:
    link = tmp_path / "bin/iorec"
    link.parent.mkdir()
    link.symlink_to("/gone/iorec/.venv/bin/iorec")
    assert make(tmp_path, "install").returncode == 0
    assert link.resolve() == ROOT / ".venv/bin/iorec"
    link.unlink()
    link.write_text("#!/bin/sh\n")
    done = make(tmp_path, "install")
    assert done.returncode != 0
    assert "is another program" in done.stderr
    assert link.read_text() == "#!/bin/sh\n"
    make(tmp_path, "uninstall")
    assert link.exists()


def test_the_drawing_of_the_wings_is_what_the_modules_import() -> None:
    wings = read_wings()
    running = {wing: imported for wing, imported in wings.items() if wing != "documentation"}
    assert len(floors_of(running)) <= 6  # no circle either: it would raise CycleError
    drawing = f"<!-- wings -->\n{draw_wings(wings)}<!-- /wings -->"
    assert drawing in (ROOT / "ARCHITECTURE.md").read_text(), "run: make docs"


def test_the_notebook_shows_what_its_cells_print() -> None:
    path = ROOT / "docs/notebook.ipynb"
    stored, made = (
        [output["data"] for cell in cells for output in cell.get("outputs", ())]
        for cells in (json.loads(path.read_text())["cells"], run_notebook(path).cells)
    )
    shown = [["".join(output["text/plain"]) for output in outputs] for outputs in (stored, made)]
    assert len(shown[0]) > 3
    assert shown[0] == shown[1], "run: make docs"
    assert "image/png" in made[-1]
    assert path.stat().st_size < 20_000  # it has the texts and no picture


def test_make_alone_says_what_it_can_do() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    usage = run("make", "-C", ROOT, "--no-print-directory")
    for goal in set(phony[1].split()) - {"help", "environment", "packages"}:
        assert f"  make {goal} " in usage
