"""Training curves: loss and EER per epoch, as a PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voice_biometrics.common.plot_style import BLACK, BLUE, VERMILION, quiet_axes, save_figure


def plot_curves(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the plot of ``curves_figure`` to ``path``."""
    save_figure(curves_figure(rows), path)


def curves_figure(rows: Sequence[Mapping[str, object]]) -> Figure:
    """Draw the training loss per epoch and, below it, the EER on held-out speakers with the best epoch marked.

    Arguments
    ---------
    rows : one mapping per epoch: ``epoch``, ``train_loss`` and ``eer`` (a fraction), as numbers or text. Missing, empty
        and NaN values are skipped, since the EER need not be computed every epoch; without any EER its panel is
        omitted.
    """
    epochs, losses, eers = (_column(rows, name) for name in ("epoch", "train_loss", "eer"))
    has_eer = bool(np.isfinite(eers).any())
    figure = Figure(figsize=(7.0, 5.6 if has_eer else 3.4), layout="constrained")
    panels = figure.subplots(1 + has_eer, 1, sharex=True, squeeze=False)[:, 0]
    _draw_known(panels[0], epochs, losses, BLUE)
    panels[0].set_ylabel("training loss")
    if has_eer:
        _draw_known(panels[1], epochs, 100.0 * eers, VERMILION)
        panels[1].set_ylabel("EER on held-out speakers (%)")
        _mark_best_epoch(panels, epochs, eers)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for panel in panels:
        quiet_axes(panel)
    return figure


def _draw_known(panel: Axes, epochs: np.ndarray, values: np.ndarray, colour: str) -> None:
    """Draw a line through the epochs that have a value, with dots if there are few."""
    known = np.isfinite(values)
    marker = "o" if known.sum() <= 40 else ""
    panel.plot(epochs[known], values[known], color=colour, marker=marker, markersize=4)


def _mark_best_epoch(panels: Sequence[Axes], epochs: np.ndarray, eers: np.ndarray) -> None:
    """Mark the first epoch with the lowest EER by a line through all panels, and name it in the title of the last."""
    best = int(np.nanargmin(eers))
    for panel in panels:
        panel.axvline(epochs[best], color="0.6", linewidth=0.8, linestyle="--", zorder=1)
    panels[-1].plot([epochs[best]], [100.0 * eers[best]], marker="*", markersize=13, color=BLACK, zorder=4)
    panels[-1].set_title(f"best (star): {100.0 * eers[best]:.2f} % at epoch {epochs[best]:g}", fontsize=10)


def _column(rows: Sequence[Mapping[str, object]], name: str) -> np.ndarray:
    """Return one column as (epochs,) floats, NaN where there is no value."""
    values = (row.get(name) for row in rows)
    return np.array([math.nan if value in (None, "") else float(value) for value in values])
