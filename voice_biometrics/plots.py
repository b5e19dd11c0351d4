"""Pictures that a person looks at: training curves, DET curves and score histograms, as PNG files.

Each ``plot_*`` writes one file (to a temporary name, then renamed); its ``*_figure`` twin returns the
matplotlib Figure. Nothing here touches pyplot or a display, so import and use have no side effects.
Colours are those of Okabe and Ito, told apart by colour-blind readers; each also has its own line style.

Source: Martin et al. 1997, "The DET curve in assessment of detection task performance" (normal-deviate axes).
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from scipy.special import ndtri

from voice_biometrics.files import written_whole

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
DET_TICKS = (1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
LEGEND_WIDTH = 72  # characters; longer labels are wrapped, or they would run off the picture


def plot_curves(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Write the picture of ``curves_figure`` to ``path`` (PNG)."""
    _save(curves_figure(rows), path)


def plot_det(curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]], path: Path) -> None:
    """Write the picture of ``det_figure`` to ``path`` (PNG)."""
    _save(det_figure(curves), path)


def plot_score_histograms(
    scores: np.ndarray, is_target: np.ndarray, thresholds: Mapping[str, float | None], path: Path
) -> None:
    """Write the picture of ``score_histograms_figure`` to ``path`` (PNG)."""
    _save(score_histograms_figure(scores, is_target, thresholds), path)


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
        _quiet_axes(panel)
    return figure


def det_figure(curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]]) -> Figure:
    """Draw DET curves on normal-deviate axes in per cent, each with its EER on the diagonal FAR = FRR.

    Arguments
    ---------
    curves : one per system: label, ``far`` (points,), ``frr`` (points,), both fractions in the order of
        growing thresholds, and the EER, a fraction. Rates under the scale (0 above all) run along its edge.
    """
    figure = Figure(figsize=(6.2, 6.8), layout="constrained")
    axes = figure.add_subplot()
    low, high = _det_limits(curves)
    axes.plot(ndtri([low, high]), ndtri([low, high]), color="0.6", linewidth=0.8, zorder=1)
    handles = []
    for number, (label, far, frr, eer) in enumerate(curves):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        style = LINE_STYLES[number % len(LINE_STYLES)]
        text = _legend_text(f"EER {100.0 * eer:.2f} %: {label}")
        handles += axes.plot(*_det_line(far, frr, low, high), color=colour, linestyle=style, label=text, zorder=3)
        _mark_eer(axes, eer, (low, high), colour)
    _det_axes(axes, low, high)
    figure.legend(handles=handles, loc="outside lower center", frameon=False)
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
    bins = _histogram_bins(scores)
    for kind, chosen, colour, hatch in (("non-target", ~is_target, ORANGE, "//"), ("target", is_target, BLUE, "")):
        label = f"{kind} ({chosen.sum():,} trials)"
        style = {"color": colour, "histtype": "stepfilled", "alpha": 0.55, "hatch": hatch, "edgecolor": colour}
        axes.hist(scores[chosen], bins=bins, density=True, label=label, **style)
    _draw_thresholds(axes, thresholds)
    axes.set_xlabel("score (higher = more alike)")
    axes.set_ylabel("density (per unit of score)")
    axes.set_ylim(bottom=0.0)
    _quiet_axes(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


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


def _det_limits(curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]]) -> tuple[float, float]:
    """Choose the range of rates, the same for both axes: down to what the trials can show, up to past the EERs."""
    rates = [np.asarray(side) for _, far, frr, _ in curves for side in (far, frr)]
    smallest = min((float(np.min(side[side > 0.0], initial=1.0)) for side in rates), default=0.01)
    worst_eer = max((eer for *_, eer in curves), default=0.0)
    low = float(np.clip(smallest / 2.0, 5e-5, 5e-3))
    return low, 0.6 if worst_eer <= 0.35 else max(0.9, min(0.995, 1.5 * worst_eer))


def _det_axes(axes: Axes, low: float, high: float) -> None:
    """Give both axes the normal-deviate scale with ticks in per cent."""
    ticks = [tick for tick in DET_TICKS if low <= tick <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ndtri(ticks)))
        axis.set_major_formatter(FuncFormatter(lambda _, place: f"{100.0 * ticks[place]:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlim(*ndtri([low, high]))
    axes.set_ylim(*ndtri([low, high]))
    axes.set_aspect("equal")
    axes.set_xlabel("false acceptance rate, FAR (%)")
    axes.set_ylabel("false rejection rate, FRR (%)")
    _quiet_axes(axes)


def _det_line(far: np.ndarray, frr: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the points to draw, in normal deviates: between few points, lines straight in the rates; of many, some.

    Points closer than a two-thousandth of the axis are dropped: millions of trials, one light line.
    """
    if len(far) < 500:  # straight in the rates, as the EER is read: a bow on these axes
        fine = np.linspace(0.0, len(far) - 1.0, 50 * (len(far) - 1) + 1)
        far, frr = (np.interp(fine, np.arange(len(far)), rates) for rates in (far, frr))
    points = ndtri(np.clip(np.stack([far, frr]), low, 1.0 - 1e-6))  # (2, points)
    cells = np.floor(points / (ndtri(high) - ndtri(low)) * 2000.0)
    kept = np.append(True, (cells[:, 1:] != cells[:, :-1]).any(axis=0))
    kept[-1] = True
    return points[0, kept], points[1, kept]


def _mark_eer(axes: Axes, eer: float, limits: tuple[float, float], colour: str) -> None:
    """Draw a dot where FAR = FRR = EER; in the corner, and said so, if the scale does not reach so far."""
    place = ndtri(np.clip(eer, *limits))
    axes.plot(
        [place], [place], marker="o", color=colour, markeredgecolor="white", markersize=8, zorder=4, clip_on=False
    )
    if eer < limits[0]:
        axes.annotate("EER below the scale", (place, place), xytext=(10, 8), textcoords="offset points")
    if eer > limits[1]:
        style = {"textcoords": "offset points", "horizontalalignment": "right"}
        axes.annotate("EER above the scale", (place, place), xytext=(-10, -14), **style)


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
            axes.plot([], [], label=_legend_text(f"{name}: rejects all", 40), **style)
        else:
            axes.axvline(threshold, label=_legend_text(f"{name}: {threshold:.4g}", 40), **style)


def _column(rows: Sequence[Mapping[str, object]], name: str) -> np.ndarray:
    """Return one column as (epochs,) floats, NaN where there is no value."""
    values = (row.get(name) for row in rows)
    return np.array([math.nan if value in (None, "") else float(value) for value in values])


def _legend_text(label: str, width: int = LEGEND_WIDTH) -> str:
    """Wrap a label to so many characters, and keep a dollar sign one: matplotlib reads pairs as mathematics."""
    return textwrap.fill(label, width).replace("$", r"\$")


def _quiet_axes(axes: Axes) -> None:
    """A light grid behind the data, and no frame above and to the right."""
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
