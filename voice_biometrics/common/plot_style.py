"""What all pictures share: colours, line styles, quiet axes, legends that are wrapped, files that are whole.

Nothing here or in the other ``plots`` modules touches pyplot or a display, so import and use have no side effects.
Colours are those of Okabe and Ito, told apart by colour-blind readers; what has a colour also has its own line style,
marker or hatch.
"""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke

from voice_biometrics.common.files import written_whole

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LEGEND_WIDTH = 72  # characters; longer labels are wrapped, or they would run off the picture


def line_look(number: int) -> dict[str, object]:
    """Return colour and line style of the ``number``-th line: 35 lines differ."""
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}


def legend_text(label: str, width: int = LEGEND_WIDTH) -> str:
    """Wrap a label to so many characters, and keep a dollar sign one: matplotlib reads pairs as mathematics."""
    return textwrap.fill(label, width).replace("$", r"\$")


def halo() -> list[AbstractPathEffect]:
    """Return the white rim that keeps a text legible on lines and dots."""
    return [withStroke(linewidth=3.0, foreground="white")]


def quiet_axes(axes: Axes) -> None:
    """Give a light grid behind the data, and no frame above and to the right."""
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
