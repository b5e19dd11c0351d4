"""Pictures of error trade-offs: DET curves with their interval bands, and the ROC near a FAR of zero.

Each ``plot_*`` writes one PNG; its ``*_figure`` twin returns the matplotlib Figure.

Source: Martin et al. 1997, "The DET curve in assessment of detection task performance" (normal-deviate axes);
the limits of what trials support are those of ``voice_biometrics.far_support``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import ndtr, ndtri

from voice_biometrics.far_support import ERRORS_FOR_30_PER_CENT, ERRORS_FOR_ANY_CLAIM
from voice_biometrics.intervals import Interval
from voice_biometrics.metrics import ErrorRates
from voice_biometrics.operating_points import PointResult
from voice_biometrics.plots_style import (
    LINE_COLOURS,
    MARKERS,
    halo,
    legend_text,
    line_look,
    quiet_axes,
    save_figure,
)

DET_TICKS = (1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
CELLS = 2000.0  # points closer than this part of the axis are one: millions of trials, one light line
BAND_TEXT = "shaded along a curve: 95 % interval of the FRR at each FAR"


@dataclass(frozen=True, eq=False)
class Band:
    """The 95 % interval of the FRR at each of some FARs: ``far``, ``lower``, ``upper``, (points,) fractions each."""

    far: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, intervals: Mapping[float, Interval]) -> "Band":
        """Return the band of FAR -> interval of the FRR there (measures ``FrrAtFar`` of ``bootstrap_intervals``).

        It ends where no target is rejected: intervals there come from the rule of 3 and would be a step in the band.
        """
        fars = sorted(far for far, interval in intervals.items() if interval.estimate > 0.0)
        ends = [(intervals[far].lower, intervals[far].upper) for far in fars]
        return cls(np.array(fars), *np.array(ends, np.float64).reshape(-1, 2).T)


@dataclass(frozen=True, eq=False)
class DetCurve:
    """The operating points of one system, for a picture.

    label : the system's name. far, frr : (points,) fractions in the order of growing thresholds. eer : fraction.
    band : the interval of the FRR, if it is to be drawn.
    """

    label: str
    far: np.ndarray
    frr: np.ndarray
    eer: float
    band: Band | None = None

    @classmethod
    def of(cls, label: str, rates: ErrorRates, band: Band | None = None) -> "DetCurve":
        """Return the curve of ``metrics.error_rates``."""
        return cls(label, rates.far, rates.frr, rates.equal_error_rate()[0], band)


def band_fars(num_nontarget: int, num_points: int = 25) -> list[float]:
    """Return FARs at which to ask for the FRR's interval: evenly spread on a DET axis, as low as the trials support."""
    lowest = min(ERRORS_FOR_ANY_CLAIM / num_nontarget, 0.4)
    return ndtr(np.linspace(ndtri(lowest), ndtri(0.5), num_points)).tolist()


def plot_det(curves: Sequence[DetCurve], path: Path) -> None:
    """Write the picture of ``det_figure`` to ``path`` (PNG)."""
    save_figure(det_figure(curves), path)


def plot_roc_near_zero(
    curves: Sequence[DetCurve], num_nontarget: int, points: Mapping[str, PointResult], path: Path
) -> None:
    """Write the picture of ``roc_near_zero_figure`` to ``path`` (PNG)."""
    save_figure(roc_near_zero_figure(curves, num_nontarget, points), path)


def det_figure(curves: Sequence[DetCurve]) -> Figure:
    """Draw DET curves on normal-deviate axes in per cent, each with its EER on the diagonal FAR = FRR.

    Arguments
    ---------
    curves : one per system. Rates under the scale (0 above all) run along its edge.
    """
    figure = Figure(figsize=(6.2, 6.8), layout="constrained")
    axes = figure.add_subplot()
    low, high = _det_limits(curves)
    axes.plot(ndtri([low, high]), ndtri([low, high]), color="0.6", linewidth=0.8, zorder=1)
    handles = []
    for number, curve in enumerate(curves):
        look = line_look(number)
        text = legend_text(f"EER {100.0 * curve.eer:.2f} %: {curve.label}")
        handles += axes.plot(*_det_line(curve.far, curve.frr, low, high), label=text, zorder=3, **look)
        if curve.band:
            edges = [ndtri(np.clip(rates, low, 1.0 - 1e-6)) for rates in (curve.band.lower, curve.band.upper)]
            axes.fill_between(ndtri(np.clip(curve.band.far, low, high)), *edges, **_band_look(look))
        _mark_eer(axes, curve.eer, (low, high), look["color"])
    _det_axes(axes, low, high)
    figure.legend(handles=handles + _band_handles(curves), loc="outside lower center", frameon=False)
    return figure


def roc_near_zero_figure(
    curves: Sequence[DetCurve], num_nontarget: int, points: Mapping[str, PointResult] | None = None
) -> Figure:
    """Draw the FRR against a logarithmic FAR down to what the trials support, and mark operating points.

    The FRR is that of the lowest threshold that keeps to the FAR, so curves are steps. FARs of fewer than 3 and of
    fewer than 30 false accepts are shaded, and the legend says why.

    Arguments
    ---------
    curves : one per system, all of the same trials.
    num_nontarget : non-target trials of the list.
    points : name -> what its threshold does on these trials, drawn with the intervals of FAR and FRR.
    """
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    axes = figure.add_subplot()
    lowest = min(1.0 / num_nontarget, 0.1)
    handles = []
    for number, curve in enumerate(curves):
        look = line_look(number)
        handles += axes.plot(
            *_log_steps(curve, lowest), drawstyle="steps-pre", label=legend_text(curve.label), zorder=3, **look
        )
        if curve.band:
            edges = (100.0 * curve.band.lower, 100.0 * curve.band.upper)
            axes.fill_between(100.0 * np.maximum(curve.band.far, lowest), *edges, **_band_look(look))
    handles += _band_handles(curves) + _mark_points(axes, points or {}, len(curves), lowest)
    handles += _shade(axes, num_nontarget, lowest)
    axes.set_xscale("log")
    axes.set_xlim(100.0 * lowest, 100.0)
    axes.set_ylim(0.0, 100.0 * _highest_frr(curves, lowest))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda far, _: f"{far:g}"))
    axes.set_xlabel("false acceptance rate, FAR (%), logarithmic")
    axes.set_ylabel("false rejection rate, FRR (%)")
    quiet_axes(axes)
    figure.legend(handles=handles, loc="outside lower center", frameon=False)
    return figure


def _band_look(look: Mapping[str, object]) -> dict[str, object]:
    """A pale area in the colour of the line, with its edges in the style of the line."""
    return {**look, "alpha": 0.2, "linewidth": 1.0, "zorder": 2}


def _band_handles(curves: Sequence[DetCurve]) -> list[Patch]:
    """Say in the legend what the bands are, if there are any."""
    return [Patch(color="0.5", alpha=0.3, label=BAND_TEXT)] if any(curve.band for curve in curves) else []


def _log_steps(curve: DetCurve, lowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return FAR and FRR to draw, in per cent, down to the first FAR under ``lowest``, which is put on the edge."""
    num_shown = int(np.count_nonzero(curve.far >= lowest)) + 1
    far, frr = np.maximum(curve.far[:num_shown], lowest), curve.frr[:num_shown]
    kept = _not_together(np.stack([np.log(far) / np.log(lowest), frr]))
    return 100.0 * far[kept], 100.0 * frr[kept]


def _not_together(places: np.ndarray) -> np.ndarray:
    """Return which points to draw, bool (points,): of ``places`` (2, points) in parts of an axis, one of each cell."""
    cells = np.floor(places * CELLS)
    kept = np.append(True, (cells[:, 1:] != cells[:, :-1]).any(axis=0))
    kept[-1] = True
    return kept


def _highest_frr(curves: Sequence[DetCurve], lowest: float) -> float:
    """Return where the FRR axis ends: a little above all that is drawn, and within 1."""
    shown = [float(np.min(curve.frr[curve.far < lowest], initial=1.0)) for curve in curves]
    ends = [curve.band.upper for curve in curves if curve.band]
    shown += [float(np.max(upper, initial=0.0, where=np.isfinite(upper))) for upper in ends]
    return min(1.02, max(0.05, 1.1 * max(shown, default=1.0)))


def _mark_points(axes: Axes, points: Mapping[str, PointResult], num_curves: int, lowest: float) -> list[object]:
    """Draw each operating point with its intervals and its name, and return what the legend says of them."""
    handles = []
    for number, (name, point) in enumerate(points.items(), start=num_curves):  # no curve has this colour
        place = [100.0 * max(point.far.estimate, lowest)], [100.0 * point.frr.estimate]
        far_ends = 100.0 * np.maximum([point.far.lower, point.far.upper], lowest)
        frr_ends = 100.0 * np.array([point.frr.lower, point.frr.upper])
        style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "zorder": 5, "clip_on": False}
        axes.plot(far_ends, place[1] * 2, linewidth=1.2, **style)
        axes.plot(place[0] * 2, frr_ends, linewidth=1.2, **style)
        text = f"{name}: FAR {100.0 * point.far.estimate:.3g} %, FRR {100.0 * point.frr.estimate:.3g} %"
        marker = {"marker": MARKERS[number % len(MARKERS)], "markersize": 9, "markeredgecolor": "white"}
        handles += axes.plot(*place, linestyle="none", label=legend_text(text), **marker, **style)
        offset = {"xytext": (9, 7), "textcoords": "offset points", "path_effects": halo(), "zorder": 6}
        axes.annotate(legend_text(name), (place[0][0], place[1][0]), **offset)
    return handles


def _shade(axes: Axes, num_nontarget: int, lowest: float) -> list[Patch]:
    """Shade the FARs that the trials do not support, or coarsely, and return what the legend says of them."""
    handles, start = [], lowest
    for errors, verdict, look in (
        (ERRORS_FOR_ANY_CLAIM, "not supported", {"facecolor": "0.78", "hatch": "xx"}),
        (ERRORS_FOR_30_PER_CENT, "known coarsely", {"facecolor": "0.92"}),
    ):
        end = min(1.0, errors / num_nontarget)
        text = f"{verdict}: below {100.0 * end:.2g} % are fewer than {errors} of {num_nontarget:,} non-target trials"
        style = {"edgecolor": "0.65", "linewidth": 0.0, **look}
        axes.axvspan(100.0 * start, 100.0 * end, zorder=0, **style)
        handles.append(Patch(label=text, **style))
        start = end
    return handles


def _det_limits(curves: Sequence[DetCurve]) -> tuple[float, float]:
    """Choose the range of rates, the same for both axes: down to what the trials can show, up to past the EERs."""
    rates = [side for curve in curves for side in (curve.far, curve.frr)]
    smallest = min((float(np.min(side[side > 0.0], initial=1.0)) for side in rates), default=0.01)
    worst_eer = max((curve.eer for curve in curves), default=0.0)
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
    quiet_axes(axes)


def _det_line(far: np.ndarray, frr: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the points to draw, in normal deviates: between few points, lines straight in the rates; of many, some."""
    if len(far) < 500:  # straight in the rates, as the EER is read: a bow on these axes
        fine = np.linspace(0.0, len(far) - 1.0, 50 * (len(far) - 1) + 1)
        far, frr = (np.interp(fine, np.arange(len(far)), rates) for rates in (far, frr))
    points = ndtri(np.clip(np.stack([far, frr]), low, 1.0 - 1e-6))  # (2, points)
    kept = _not_together(points / (ndtri(high) - ndtri(low)))
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
