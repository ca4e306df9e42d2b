# SPDX-License-Identifier: GPL-2.0-only
"""Formats the JSON Schema of what a command prints with --json, from the dataclasses it renders."""

import inspect
import json
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from analyze.render.json import SCHEMA_VERSION
from analyze.typed_json import EpochNs, SignedInt, field_types, rare_fields

_SIMPLE = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    SignedInt: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    EpochNs: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
}


def format_schema(document: type, command: str) -> str:
    """The schema of the documents that `command` prints, in which every field is always there."""
    definitions: dict[str, Any] = {}
    made = _object(document, definitions)
    version = {"const": SCHEMA_VERSION}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{command} --json",
        **made,
        "properties": {"schema_version": version, **made["properties"]},
        "required": ["schema_version", *made["required"]],
        "$defs": dict(sorted(definitions.items())),
    }
    return json.dumps(schema, indent=2) + "\n"


def _object(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(cls)]
    hints = field_types(cls)
    return {
        "description": " ".join(inspect.getdoc(cls).split()),  # type: ignore[union-attr]
        "type": "object",
        "properties": {name: _value(hints[name], definitions) for name in names},
        "required": [name for name in names if name not in rare_fields(cls)],
    }


def _value(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    arguments = get_args(hint)
    if isinstance(hint, types.UnionType):
        return {"anyOf": [_value(argument, definitions) for argument in arguments]}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": _value(arguments[1], definitions)}
    if not is_dataclass(hint):
        return _SIMPLE[hint]
    assert isinstance(hint, type)
    if hint.__name__ not in definitions:
        definitions[hint.__name__] = {}  # it may refer to itself
        definitions[hint.__name__] = _object(hint, definitions)
    return {"$ref": f"#/$defs/{hint.__name__}"}
