# SPDX-License-Identifier: GPL-2.0-only
"""Styles the screen of top."""

CSS = """\
Screen, DataTable, Input, Static, Help { background: ansi_default; color: ansi_default; }
Screen { layout: vertical; overflow: hidden; }
Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
#head, #foot { text-style: reverse; }
#heat { height: auto; }
DataTable { height: 1fr; scrollbar-size: 0 0; }
DataTable > .datatable--header {
    background: ansi_default; color: ansi_default; text-style: bold;
}
DataTable > .datatable--fixed {
    background: ansi_default; color: ansi_default; text-style: none;
}
DataTable > .datatable--cursor, DataTable > .datatable--fixed-cursor {
    background: ansi_default; color: ansi_default; text-style: reverse;
}
Input { border: none; height: 1; padding: 0; display: none; }
Help { align: center middle; }
#help { width: 52; height: auto; border: ascii ansi_default; }
"""
