# SPDX-License-Identifier: GPL-2.0-only
"""How every chart looks: colours, fonts and characters."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke

from analyze.escape import escape_for_terminal

# Okabe and Ito's colours, distinguishable to the colour-blind; in the order of OPS.
OP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777", "#111111")
# Without its yellow end, in which a lone busy cell would be lost on white.
HEAT_COLOURS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, 256)))
INK = "#222222"
FAINT_INK = "#666666"
FAILED_STYLE: dict[str, Any] = {
    "linestyle": "none",
    "marker": "X",
    "markersize": 6,
    "markerfacecolor": "#D00000",
    "markeredgecolor": "white",
    "markeredgewidth": 0.7,
}
MANY_FAILED_STYLE = FAILED_STYLE | {"marker": "s", "markersize": 3, "markeredgewidth": 0}
HUNG_STYLE: dict[str, Any] = {"fill": False, "edgecolor": "#D00000", "linewidth": 1.2}
# In the order of LINE_PERCENTILES, with a border that parts them from every colour of the heatmap.
LINE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {
        "color": colour,
        "linewidth": 1.3,
        "path_effects": [withStroke(linewidth=3, foreground="#000000")],
    }
    for colour in ("#FFFFFF", "#FF7FDD")
)
# Paul Tol's muted colours, which are none of those above.
OWNER_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499"),
)
OTHERS_COLOUR = "#CCCCCC"
MARK_STYLE: dict[str, Any] = {"color": "#000000", "linewidth": 1, "linestyle": (0, (4, 2))}
MARK_LABEL_STYLE: dict[str, Any] = {
    "size": 8,
    "bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
}
LOSS_STYLE: dict[str, Any] = {
    "facecolor": "#F3E9A0",
    "edgecolor": "#B8A937",
    "hatch": "////",
    "linewidth": 0,
}

_FONT = "DejaVu Sans"  # ships with matplotlib
_SETTINGS: dict[Any, Any] = {
    "font.family": _FONT,
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,
    "axes.labelcolor": FAINT_INK,
    "axes.labelsize": 9,
    "axes.edgecolor": "#999999",
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#999999",
    "ytick.color": "#999999",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",  # text that can be searched and edited
    "svg.hashsalt": "iorec",  # the same capture gives the same file
}


@contextmanager
def theme() -> Iterator[None]:
    """Our look, whatever the user's matplotlibrc says; to be active while drawing and saving."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def drawable(name: str | None, longest: int = 32) -> str:
    """A name from the recorded machine: short, and escaped where it cannot be drawn or seen."""
    if name is None:
        return "unknown"
    drawn = with_known_characters(escape_for_terminal(name[:longest]))
    is_whole = len(name) <= longest and len(drawn) <= longest
    return drawn if is_whole else drawn[: longest - 1] + "…"


def with_known_characters(text: str) -> str:
    """`text` with an escape for each character that the font lacks: names stay distinct."""
    known = _font_characters()
    return "".join(
        character if ord(character) in known else character.encode("unicode_escape").decode()
        for character in text
    )


@cache
def _font_characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=_FONT))).get_charmap())
