# SPDX-License-Identifier: GPL-2.0-only
"""Renders any of the dataclasses as one JSON document: base units, nothing rounded."""

import json
from typing import Any

from analyze.typed_json import json_value

# Version history
#   1  first version
#   2  cache flushes are groups of their own; failed I/Os are in no bytes and no latency
SCHEMA_VERSION = 2


def render_json(document: Any) -> str:
    """The dataclass as an object that also says `schema_version`; times are RFC 3339."""
    versioned = {"schema_version": SCHEMA_VERSION, **json_value(document)}
    return json.dumps(versioned, default=json_value, indent=2) + "\n"
