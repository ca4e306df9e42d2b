# SPDX-License-Identifier: GPL-2.0-only
"""The command `iorec info`."""

from iorec.host.signals import raising_interrupts
from iorec.host.terminal import output_width
from iorec.options import Captures, Json, Verbose

EPILOG = """\b
Examples:
  iorec info run.parquet
  iorec info run.parquet --json
"""


def info(captures: Captures, json: Json = False, verbose: Verbose = False) -> str:
    """Say what a capture is and whether it is complete."""
    from analyze.capture import open_captures
    from analyze.info import make_info
    from analyze.render.info import render_info
    from analyze.render.json import render_json

    with raising_interrupts(), open_captures(captures) as capture:
        made = make_info(capture)
    if json:
        return render_json(made)
    return render_info(made, output_width())
