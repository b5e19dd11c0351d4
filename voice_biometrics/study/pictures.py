"""Pictures of a study: the EER of each variant, and the EER against the number of speakers trained on.

Both are drawn from the rows of ``ablations.csv`` (see ``table``), so they can be drawn again without the runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from voice_biometrics.plots_style import BLACK, BLUE, VERMILION, quiet_axes, save_figure
from voice_biometrics.study.table import BETTER, CONDITIONS, WORSE

COLOURS = dict(zip(CONDITIONS, (BLUE, VERMILION), strict=True))
MARKERS = dict(zip(CONDITIONS, ("o", "s"), strict=True))

LEGEND = "filled: better or worse than the base (black) beyond chance; bars: 95 % intervals; dots: seeds"


def plot_variants(rows: pd.DataFrame, base: str, path: Path) -> None:
    """Write the picture of ``variants_figure`` to ``path`` (PNG)."""
    save_figure(variants_figure(rows, base), path)


def plot_data_size(rows: pd.DataFrame, path: Path) -> None:
    """Write the picture of ``data_size_figure`` to ``path`` (PNG)."""
    save_figure(data_size_figure(rows), path)


def variants_figure(rows: pd.DataFrame, base: str) -> Figure:
    """Draw a line a variant, the best at the top, in a panel a condition: mean EER, its interval, and each seed.

    A filled mark is better or worse than the base after correction for the number of variants. The intervals share the
    speakers, so that two that overlap can differ all the same.
    """
    figure = Figure(figsize=(9.0, 1.9 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(CONDITIONS), sharey=True, squeeze=False)[0]
    for panel, condition in zip(panels, CONDITIONS, strict=True):
        _draw_variants(panel, rows, condition, base)
    panels[0].set_yticks(range(len(rows)), rows["variant"])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(LEGEND, fontsize=9)
    return figure


def _draw_variants(panel: Axes, rows: pd.DataFrame, condition: str, base: str) -> None:
    """Draw one condition: marks, bars, seeds, and a line at the base."""
    eer, colour, marker = f"eer_{condition}", COLOURS[condition], MARKERS[condition]
    for place, (_, row) in enumerate(rows.iterrows()):
        lower, mean, upper = (100 * row[f"{eer}{end}"] for end in ("_lower", "", "_upper"))
        is_base = row["variant"] == base
        told_apart = row[f"{eer}_verdict"] in (BETTER, WORSE)
        panel.plot([lower, upper], [place, place], color=colour, linewidth=1.2, zorder=2)
        face = BLACK if is_base else colour if told_apart else "white"
        panel.plot(
            mean, place, marker, color=BLACK if is_base else colour, markerfacecolor=face, markersize=7, zorder=3
        )
        seeds = [100 * float(value) for value in str(row[f"{eer}_seeds"]).split()]
        panel.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.4", markersize=4, zorder=2)
        if is_base:
            panel.axvline(mean, color="0.5", linewidth=0.8, linestyle="--", zorder=1)
    panel.set_xlabel(f"EER on held-out speakers, {condition} (%)")
    panel.set_xlim(left=0.0)
    quiet_axes(panel)


def data_size_figure(rows: pd.DataFrame) -> Figure:
    """Draw the EER with its interval against the number of speakers trained on, both axes logarithmic."""
    rows = rows.sort_values("num_train_speakers")
    speakers = rows["num_train_speakers"].to_numpy(float)
    figure = Figure(figsize=(7.0, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for condition in CONDITIONS:
        lower, mean, upper = (100 * rows[f"eer_{condition}{end}"].to_numpy() for end in ("_lower", "", "_upper"))
        errors = np.abs([mean - lower, upper - mean])
        style = {"color": COLOURS[condition], "marker": MARKERS[condition], "capsize": 3, "label": condition}
        axes.errorbar(speakers, mean, errors, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(speakers, [f"{row.variant}\n{row.num_train_speakers:,}" for row in rows.itertuples()], fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())
    axes.set_xlabel("speakers trained on")
    axes.set_ylabel("EER on held-out speakers (%)")
    axes.legend(frameon=False)
    quiet_axes(axes)
    return figure
