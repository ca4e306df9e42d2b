# SPDX-License-Identifier: GPL-2.0-only
"""docs/capture-format.md and docs/schema: they say what the code does."""

import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pyarrow as pa
import pytest

from analyze.metadata import FORMAT_VERSION, Metadata
from analyze.schema import ADDED_COLUMNS, LOSS_CAUSES, SCHEMA
from analyze.typed_json import field_types
from iorec.documentation.__main__ import schemas

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/capture-format.md").read_text()


def section(title: str) -> str:
    (found,) = re.findall(rf"^##+ {title}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def dataclasses_in(hint: Any) -> set[type[Any]]:
    if isinstance(hint, type) and is_dataclass(hint):
        inner = [dataclasses_in(field) for field in field_types(hint).values()]
        return {hint}.union(*inner)
    return set().union(*map(dataclasses_in, get_args(hint)))


def test_every_column_is_described_in_its_place_with_its_type() -> None:
    def described(field: pa.Field) -> list[str]:
        is_name = pa.types.is_dictionary(field.type)
        return [f"`{field.name}`", "name" if is_name else str(field.type)]

    listed = rows(section("Columns"))
    assert [row[:2] for row in listed] == [described(field) for field in SCHEMA]
    for row, field in zip(listed, SCHEMA, strict=True):
        assert (row[2] == "never") == (not field.nullable), row
    assert f"columns from `{ADDED_COLUMNS[0]}` on" in section("Columns").replace("\n", " ")


@pytest.mark.parametrize("cls", sorted(dataclasses_in(Metadata), key=attrgetter("__name__")))
def test_every_key_of_the_metadata_is_described_and_none_that_is_not_there(cls: type[Any]) -> None:
    listed = rows(section(cls.__name__))
    found = fields(cls)
    assert [key for key, _ in listed] == [f"`{field.name}`" for field in found]
    for (key, meaning), field in zip(listed, found, strict=True):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        assert meaning.startswith("optional") == has_default, key


def test_every_version_and_every_cause_of_loss_is_described() -> None:
    assert f"Version {FORMAT_VERSION}." in PAGE
    versions = re.findall(r"^\| (\d+) \|", section("Versions"), re.MULTILINE)
    assert versions == [str(version) for version in range(1, FORMAT_VERSION + 1)]
    (lost,) = (meaning for key, meaning in rows(section("Counts")) if key == "`lost`")
    assert tuple(re.findall(r"`(\w+)`", lost)) == LOSS_CAUSES


def test_the_schemas_are_those_of_the_code() -> None:
    for name, text in schemas().items():
        assert (ROOT / name).read_text() == text, "run: make docs"


@pytest.mark.parametrize("command", ["report", "info"])
@pytest.mark.parametrize("capture", ["samples/losses.parquet", "tests/data/version-1.parquet"])
def test_what_json_prints_follows_its_schema(command: str, capture: str) -> None:
    options = ["--histogram", "--by", "device,op"] if command == "report" else []
    program = [sys.executable, "-m", "iorec", command, capture, "--json", *options]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    schema = json.loads((ROOT / f"docs/schema/{command}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema)
    del document["schema_version"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
