# SPDX-License-Identifier: GPL-2.0-only
"""Renderers: they turn finished numbers into text, JSON and CSV, and compute nothing."""
