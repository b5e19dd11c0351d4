"""Training curves: loss and EER per epoch, as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voice_biometrics.common.plot_style import BLACK, BLUE, VERMILION, quiet_axes, save_figure


def plot_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the plot of ``curves_figure`` to ``path``."""
    save_figure(curves_figure(rows), path)


def curves_figure(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw the training loss per epoch and, below it, the EER on held-out speakers with the best epoch marked.

    ``rows`` has ``epoch``, ``train_loss`` and ``eer`` (a fraction) of each epoch. A NaN is skipped; without any EER its
    panel is omitted.
    """
    table = pd.DataFrame(rows).set_index("epoch")
    losses, eers = table["train_loss"].dropna(), 100.0 * table["eer"].dropna()
    curves = [("training loss", losses, BLUE), ("EER on held-out speakers (%)", eers, VERMILION)][: 1 + bool(len(eers))]
    figure = Figure(figsize=(7.0, 5.6 if len(eers) else 3.4), layout="constrained")
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (label, values, colour) in zip(panels, curves, strict=True):
        marker = "o" if len(values) <= 40 else ""
        panel.plot(values.index, values, color=colour, marker=marker, markersize=4)
        panel.set_ylabel(label)
        quiet_axes(panel)
        if len(eers):
            panel.axvline(eers.idxmin(), color="0.6", linewidth=0.8, linestyle="--", zorder=1)
    if len(eers):
        panels[-1].plot([eers.idxmin()], [eers.min()], marker="*", markersize=13, color=BLACK, zorder=4)
        panels[-1].set_title(f"best (star): {eers.min():.2f} % at epoch {eers.idxmin():g}", fontsize=10)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure
