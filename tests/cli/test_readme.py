# SPDX-License-Identifier: GPL-2.0-only
"""The README and docs/: what they show is what happens."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
IOREC = Path(sys.executable).with_name("iorec")


def blocks(language: str) -> list[str]:
    text = "\n".join((ROOT / page).read_text() for page in PAGES if page != "CONTRIBUTING.md")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_report_is_what_the_command_prints() -> None:
    (command,) = re.findall(r"^(iorec report samples/\S+)$", README, re.MULTILINE)
    done = subprocess.run(
        [IOREC, *command.split()[1:]],
        cwd=ROOT,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = README.partition("<!-- report -->\n```\n")[2].partition("```\n<!-- /report -->")[0]
    assert shown == done.stdout


def test_what_a_page_shows_is_what_its_commands_print() -> None:
    page = (ROOT / "docs" / "why.md").read_text()
    printed = r"<!-- printed -->\n```\n(.*?)```\n<!-- /printed -->"
    examples = re.findall(rf"```\n(iorec [^\n]*)\n```\n\n{printed}", page, re.DOTALL)
    assert len(examples) == 2
    for command, shown in examples:
        done = subprocess.run(
            [IOREC, *shlex.split(command)[1:]],
            cwd=ROOT,
            env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown == done.stdout


@pytest.mark.parametrize("program", blocks("python"))
def test_every_python_example_runs(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("query", blocks("sql"))
def test_every_sql_example_runs(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert duckdb.execute(query).fetchall()


def test_every_option_of_the_examples_exists() -> None:
    examples = re.findall(r"^(?:sudo )?iorec (\w+) (.*?)(?: -- .*)?(?:  +#.*)?$", README, re.M)
    assert len(examples) > 5
    for command, arguments in examples:
        usage = subprocess.run([IOREC, command, "--help"], capture_output=True, text=True).stdout
        for option in re.findall(r"(?<!\S)--?\w[\w-]*", arguments):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", usage), (command, option)


def test_every_question_is_answered(tmp_path: Path) -> None:
    shutil.copy(ROOT / "samples" / "postgres-pgbench.parquet", tmp_path / "run.parquet")
    questions = README.partition("<!-- ask -->\n```\n")[2].partition("```")[0].splitlines()
    assert len(questions) > 5
    for question in questions:
        done = subprocess.run(
            question,
            shell=True,
            cwd=tmp_path,
            env={"PATH": f"{IOREC.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (question, done.stderr)


def test_what_is_typed_to_install_installs_and_uninstalls(tmp_path: Path) -> None:
    install, uninstall = README.partition("## Install\n")[2].split("```")[1].strip().split("\n")
    prefix, programs = tmp_path / "prefix", tmp_path / "programs"
    programs.mkdir()
    # As typed, but into a folder of its own, and in the environment that this test runs in.
    options = f"-o environment PREFIX={prefix}"
    for name, command in (("sudo", '"$@"'), ("make", f'{shutil.which("make")} {options} "$@"')):
        (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (programs / name).chmod(0o755)
    env = {"PATH": f"{programs}:{prefix}/bin:/usr/bin:/bin"}

    def type_in(line: str) -> str:
        return subprocess.check_output(line, shell=True, cwd=ROOT, env=env, text=True)

    type_in(install)
    assert type_in("iorec --version").startswith("iorec ")
    type_in(uninstall)
    assert not [path for path in prefix.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_linked_exists(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"(?<![\w/])(?:kernel|record|store|host)/\w+\.py|\bbpf/\w+\.\w+", text)
    assert len(named) > 5
    for name in named:
        assert (ROOT / "iorec" / name).exists() or (ROOT / name).exists(), name
