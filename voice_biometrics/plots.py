"""Pictures of a training and of its scores: curves per epoch, and score histograms with thresholds, as PNG files.

Each ``plot_*`` writes one file (to a temporary name, then renamed); its ``*_figure`` twin returns the matplotlib
Figure. Further pictures: ``plots_det`` (DET, ROC near zero), ``plots_calibration``, ``plots_eers`` (by group, by
condition) and ``plots_embeddings`` (map of utterances).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voice_biometrics.plots_style import (
    BLACK,
    BLUE,
    GREEN,
    LINE_STYLES,
    ORANGE,
    PURPLE,
    VERMILION,
    legend_text,
    quiet_axes,
    save_figure,
)


def plot_curves(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the picture of ``curves_figure`` to ``path`` (PNG)."""
    save_figure(curves_figure(rows), path)


def plot_score_histograms(
    scores: np.ndarray, is_target: np.ndarray, thresholds: Mapping[str, float | None], path: Path
) -> None:
    """Write the picture of ``score_histograms_figure`` to ``path`` (PNG)."""
    save_figure(score_histograms_figure(scores, is_target, thresholds), path)


def curves_figure(rows: Sequence[Mapping[str, object]]) -> Figure:
    """Draw the training loss per epoch and, below it, the EER on the held-out speakers with its best epoch.

    Arguments
    ---------
    rows : one mapping per epoch: ``epoch`` (number), ``train_loss`` and ``eer`` (a fraction). Text is
        read as a number; a value that is absent, None, empty or NaN is passed over (the EER need not be
        computed every epoch), and the EER panel is left out if no epoch has one.
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


def score_histograms_figure(
    scores: np.ndarray, is_target: np.ndarray, thresholds: Mapping[str, float | None]
) -> Figure:
    """Draw the density of target and of non-target scores, and a line at each threshold.

    Arguments
    ---------
    scores : (trials,) finite float, higher = more alike.
    is_target : (trials,) bool.
    thresholds : label -> threshold on the scale of the scores; None or infinity ("reject all") has no place
        on the axis and is only named in the legend.
    """
    scores, is_target = np.asarray(scores, np.float64), np.asarray(is_target, bool)
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = figure.add_subplot()
    draw_densities(axes, scores, is_target)
    _draw_thresholds(axes, thresholds)
    axes.set_xlabel("score (higher = more alike)")
    axes.set_ylabel("density (per unit of score)")
    quiet_axes(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_densities(axes: Axes, scores: np.ndarray, is_target: np.ndarray) -> None:
    """Draw the densities of non-target and of target ``scores`` (trials,), each over the same bins."""
    bins = _histogram_bins(scores)
    for kind, chosen, colour, hatch in (("non-target", ~is_target, ORANGE, "//"), ("target", is_target, BLUE, "")):
        label = f"{kind} ({chosen.sum():,} trials)"
        style = {"color": colour, "histtype": "stepfilled", "alpha": 0.55, "hatch": hatch, "edgecolor": colour}
        axes.hist(scores[chosen], bins=bins, density=True, label=label, **style)
    axes.set_ylim(bottom=0.0)


def _draw_known(panel: Axes, epochs: np.ndarray, values: np.ndarray, colour: str) -> None:
    """Draw a line through the epochs that have a value, with a dot at each unless they are many."""
    known = np.isfinite(values)
    marker = "o" if known.sum() <= 40 else ""
    panel.plot(epochs[known], values[known], color=colour, marker=marker, markersize=4)


def _mark_best_epoch(panels: Sequence[Axes], epochs: np.ndarray, eers: np.ndarray) -> None:
    """Mark the first epoch of the lowest EER: a line through all panels, and its value as the title of the last."""
    best = int(np.nanargmin(eers))
    for panel in panels:
        panel.axvline(epochs[best], color="0.6", linewidth=0.8, linestyle="--", zorder=1)
    panels[-1].plot([epochs[best]], [100.0 * eers[best]], marker="*", markersize=13, color=BLACK, zorder=4)
    panels[-1].set_title(f"best (star): {100.0 * eers[best]:.2f} % at epoch {epochs[best]:g}", fontsize=10)


def _histogram_bins(scores: np.ndarray) -> np.ndarray:
    """Return bin edges over all scores: more bins for more trials, and a range that is never empty."""
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        return np.linspace(low - 0.5, high + 0.5, 26)  # an odd number of bins: the scores fall in the middle one
    num_bins = int(np.clip(math.sqrt(scores.size), 12, 100))
    return np.linspace(low, high, num_bins + 1)


def _draw_thresholds(axes: Axes, thresholds: Mapping[str, float | None]) -> None:
    """Draw one line per distinct threshold; the legend holds its labels and its value."""
    colours = (BLACK, VERMILION, GREEN, PURPLE)
    labels_at: dict[float | None, list[str]] = {}
    for label, threshold in thresholds.items():
        reachable = threshold is not None and math.isfinite(threshold)
        labels_at.setdefault(threshold if reachable else None, []).append(label)
    for number, (threshold, labels) in enumerate(labels_at.items()):
        name = f"threshold, {' and '.join(labels)}"
        style = {"color": colours[number % len(colours)], "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}
        if threshold is None:
            axes.plot([], [], label=legend_text(f"{name}: rejects all", 40), **style)
        else:
            axes.axvline(threshold, label=legend_text(f"{name}: {threshold:.4g}", 40), **style)


def _column(rows: Sequence[Mapping[str, object]], name: str) -> np.ndarray:
    """Return one column as (epochs,) floats, NaN where there is no value."""
    values = (row.get(name) for row in rows)
    return np.array([math.nan if value in (None, "") else float(value) for value in values])
