# SPDX-License-Identifier: GPL-2.0-only
"""Records every I/O of a Linux machine."""

__version__ = "0.1.0"
