# SPDX-License-Identifier: GPL-2.0-only
"""Man pages and shell completion, made from the command line's own definition.

`python -m iorec.documentation PREFIX` writes them to the usual places below PREFIX, as `make
install` does.
"""
