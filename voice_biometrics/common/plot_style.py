"""Shared style of all plots: colours, line styles, axes, legends, atomic saving.

Plots are matplotlib ``Figure`` objects without pyplot, so importing and drawing need no display and set no global
state. Colours are those of Okabe and Ito, which colour-blind readers can tell apart; anything with a colour also has a
distinct line style, marker or hatch.
"""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from voice_biometrics.common.files import written_whole

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def line_look(number: int) -> dict[str, object]:
    """Return colour and line style of the ``number``-th line; 35 lines differ."""
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}


def legend_text(label: str, width: int = 72) -> str:
    """Wrap a label and neutralise what matplotlib reads in it: ``$`` (mathematics) and a leading ``_`` (hidden)."""
    text = textwrap.fill(label, width).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def quiet_axes(axes: Axes) -> None:
    """Draw a light grid behind the data, and no frame at the top and right."""
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, atomically; 128 colours halve the file, and the time to compress it."""
    figure.dpi = 150
    canvas = FigureCanvasAgg(figure)
    if figure.get_layout_engine():  # takes two passes; savefig draws figures without a layout twice as well
        figure.draw_without_rendering()
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE)
    with written_whole(path) as temporary:
        image.save(temporary, dpi=(150, 150), compress_level=1)
