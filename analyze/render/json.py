# SPDX-License-Identifier: GPL-2.0-only
"""Renders any of the dataclasses as one JSON document: base units, nothing rounded."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from analyze.typed_json import EpochNs
from analyze.units import format_rfc3339

# Version history
#   1  first version
#   2  cache flushes are groups of their own; failed I/Os are in no bytes and no latency
SCHEMA_VERSION = 2


def render_json(document: Any) -> str:
    """The dataclass as an object that also says `schema_version`; times are RFC 3339."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **_to_json(document)}, indent=2) + "\n"


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, EpochNs):
        return format_rfc3339(value)
    return str(value) if isinstance(value, Path) else value
