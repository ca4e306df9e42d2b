# SPDX-License-Identifier: GPL-2.0-only
"""Shows I/Os while they happen, in a process of its own that the recorder never waits for."""
