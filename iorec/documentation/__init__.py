# SPDX-License-Identifier: GPL-2.0-only
"""Man pages, shell completion and JSON Schemas, made from the definitions in the code.

`python -m iorec.documentation PREFIX` writes pages and completions to the usual places below
PREFIX, as `make install` does; without a prefix, as `make docs` does, it writes the schemas into
docs/schema.
"""
