"""Plots of a report: DET and ROC curves, score histograms, calibration, EERs side by side, embeddings.

``draw_evaluation`` writes all of them; the other functions return a matplotlib ``Figure``.

Sources: Martin et al. 1997, "The DET curve in assessment of detection task performance" (normal-deviate axes); Brocker
and Smith 2007, "Increasing the reliability of reliability diagrams"; Clopper and Pearson 1934 (binomial intervals).
"""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import betaincinv, expit, log_expit, logit, ndtr, ndtri

from voice_biometrics.common.plot_style import (
    BLUE,
    LINE_COLOURS,
    MARKERS,
    ORANGE,
    VERMILION,
    legend_text,
    line_look,
    quiet_axes,
    save_figure,
)
from voice_biometrics.evaluation.evaluate import Evaluation, Judged
from voice_biometrics.evaluation.groups import GroupReport, GroupResult
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.error_rates import ERRORS_FOR_30_PER_CENT, ERRORS_FOR_ANY_CLAIM, ErrorRates
from voice_biometrics.metrics.formatting import per_cent
from voice_biometrics.metrics.operating_points import PointResult

PER_CENT = FuncFormatter(lambda rate, _: f"{100.0 * rate:g}")
BAND_TEXT = "shaded along a curve: 95 % interval of the FRR at each FAR"
DET_TICKS = (1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
NEAR_1 = 1.0 - 1e-6  # 1 is infinitely far on a normal-deviate axis
CURVE_POINTS = 1000  # of a curve that is drawn, however many trials there are


@dataclass(frozen=True, eq=False)
class Curve:
    """Content of a DET or ROC curve, named as in ``Judged``; ``frr_at`` : FAR -> FRR with its interval."""

    rates: ErrorRates
    eer: Interval
    frr_at: Mapping[float, Interval] = field(default_factory=dict)


def det_figure(curves: Mapping[str, Judged | Curve]) -> Figure:
    """Draw DET curves on normal-deviate axes, each with its EER as a dot on the diagonal.

    ``curves`` : the figures of each system or condition. Rates below the scale are drawn along its edge.
    """
    figure, axes = _figure(6.2, 5.6)
    low, high = _det_limits(curves.values())
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=1)
    fars = ndtr(np.linspace(ndtri(low), ndtri(high), CURVE_POINTS))
    for number, (name, curve) in enumerate(curves.items()):
        look = line_look(number)
        frrs = np.interp(fars, curve.rates.far[::-1], curve.rates.frr[::-1])  # straight in the rates, as the EER is
        eer = curve.eer.estimate
        axes.plot(fars, frrs.clip(low, NEAR_1), label=legend_text(f"EER {per_cent(eer)}: {name}"), zorder=3, **look)
        _draw_band(axes, curve.frr_at, look, low)
        dot = {"marker": "o", "markeredgecolor": "white", "markersize": 8, "clip_on": False}
        axes.plot(*[np.clip(eer, low, high)] * 2, color=look["color"], zorder=4, **dot)
    axes.set_xscale("function", functions=(ndtri, ndtr))
    axes.set_yscale("function", functions=(ndtri, ndtr))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([tick for tick in DET_TICKS if low <= tick <= high]))
        axis.set_minor_locator(NullLocator())
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    _finish_error_axes(figure, axes, curves)
    return figure


def roc_figure(name: str, curve: Judged | Curve, points: Mapping[str, PointResult]) -> Figure:
    """Draw the FRR against a logarithmic FAR, as low as the trials support, with operating points.

    The FRR is that of the lowest threshold that keeps to the FAR, so the curve has steps. FARs of fewer than 3 and of
    fewer than 30 false accepts are shaded.

    Arguments
    ---------
    name, curve : a list of trials and its figures.
    points : use -> what its threshold does on these trials, drawn with the intervals of FAR and FRR.
    """
    figure, axes = _figure(7.0, 4.4)
    rates, look = curve.rates, line_look(0)
    lowest = min(1.0 / rates.num_nontarget, 0.1)
    _shade_unsupported(axes, rates.num_nontarget, lowest)
    fars = np.geomspace(lowest, 1.0, CURVE_POINTS)
    frrs = rates.frr[np.searchsorted(-rates.far, -fars)]
    axes.plot(fars, frrs, label=legend_text(name), zorder=3, **look)
    _draw_band(axes, curve.frr_at, look, lowest)
    for number, (use, point) in enumerate(points.items(), start=1):
        far, frr = (max(point.far.estimate, lowest), point.frr.estimate)
        far_ends = np.clip([point.far.lower, point.far.upper], lowest, 1.0)
        text = f"{use}: FAR {100.0 * point.far.estimate:.3g} %, FRR {100.0 * frr:.3g} %"
        style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "fmt": MARKERS[number % len(MARKERS)]}
        errors = {"xerr": np.abs(far_ends - far)[:, None], "yerr": _error_bar([point.frr])}
        axes.errorbar(far, frr, markersize=9, zorder=5, clip_on=False, label=legend_text(text), **errors, **style)
    axes.set(xscale="log", xlim=(lowest, 1.0), ylim=(0.0, min(1.02, axes.get_ylim()[1])))
    axes.xaxis.set_minor_locator(NullLocator())
    _finish_error_axes(figure, axes, {name: curve})
    return figure


def _draw_band(axes: Axes, frr_at: Mapping[float, Interval], look: Mapping[str, object], lowest: float) -> None:
    """Shade the interval of the FRR at each FAR, lower rates along the edge.

    The band ends where no target is rejected: intervals there come from the rule of 3 and would be a step in it.
    """
    known = [(far, found.lower, found.upper) for far, found in sorted(frr_at.items()) if found.estimate > 0.0]
    if known:
        far, lower, upper = np.transpose(known).clip(lowest, NEAR_1)
        axes.fill_between(far, lower, upper, **{**look, "alpha": 0.2, "linewidth": 1.0, "zorder": 2})


def _finish_error_axes(figure: Figure, axes: Axes, curves: Mapping[str, Judged | Curve]) -> None:
    """Label axes of FAR and FRR in per cent, and put the legend under the plot."""
    axes.xaxis.set_major_formatter(PER_CENT)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.set_xlabel("false acceptance rate, FAR (%)")
    axes.set_ylabel("false rejection rate, FRR (%)")
    quiet_axes(axes)
    handles = axes.get_legend_handles_labels()[0]
    if any(curve.frr_at for curve in curves.values()):
        handles.append(Patch(color="0.5", alpha=0.3, label=BAND_TEXT))
    _legend_below(figure, handles)


def _figure(width: float, height: float, **subplots: object) -> tuple[Figure, Axes]:
    """Return a figure and its axes; ``width`` and ``height`` in inches, without the legend below.

    The margins hold the labels, which costs a tenth of the time of a layout that measures them.
    """
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(**subplots)


def _legend_below(figure: Figure, handles: Sequence[Artist], num_columns: int = 1, top: float = 0.15) -> None:
    """Make the figure higher by a legend at its lower edge, and set the margins; ``top`` in inches."""
    lines = [handle.get_label().count("\n") + 1 for handle in handles]
    rows = max(sum(lines[column::num_columns]) for column in range(num_columns))
    width, height = figure.get_size_inches() + (0.0, 0.2 + 0.21 * rows)
    figure.set_size_inches(width, height)
    bottom = (0.8 + 0.21 * rows) / height
    figure.subplots_adjust(left=0.75 / width, right=1.0 - 0.2 / width, bottom=bottom, top=1.0 - top / height)
    figure.legend(handles=handles, loc="lower center", ncols=num_columns, frameon=False)


def _shade_unsupported(axes: Axes, num_nontarget: int, lowest: float) -> None:
    """Shade the FARs that the trials do not support, or only coarsely."""
    start = lowest
    for errors, verdict, look in (
        (ERRORS_FOR_ANY_CLAIM, "not supported", {"facecolor": "0.78", "hatch": "xx"}),
        (ERRORS_FOR_30_PER_CENT, "known coarsely", {"facecolor": "0.92"}),
    ):
        end = min(1.0, errors / num_nontarget)
        text = f"{verdict}: FAR below {100.0 * end:.2g} %, fewer than {errors} of {num_nontarget:,} non-target trials"
        axes.axvspan(start, end, zorder=0, edgecolor="0.65", linewidth=0.0, label=text, **look)
        start = end


def _det_limits(curves: Collection[Judged | Curve]) -> tuple[float, float]:
    """Return the range of both axes: as low as the trials can show, and above the highest EER."""
    smallest = min(1.0 / max(curve.rates.num_target, curve.rates.num_nontarget) for curve in curves)
    worst_eer = max(curve.eer.estimate for curve in curves)
    return float(np.clip(smallest / 2.0, 5e-5, 5e-3)), min(0.995, max(0.6, 1.7 * worst_eer))


def _error_bar(intervals: Sequence[Interval]) -> np.ndarray:
    """Return the lengths of error bars below and above estimates, (2, intervals)."""
    return np.array([[found.estimate - found.lower, found.upper - found.estimate] for found in intervals]).T


def score_histograms_figure(scores: np.ndarray, is_target: np.ndarray, thresholds: Mapping[str, float]) -> Figure:
    """Draw the densities of target and non-target scores, and a line at each threshold.

    Arguments
    ---------
    scores : (trials,) finite float, higher = more alike.
    is_target : (trials,) bool.
    thresholds : label -> threshold, a score; one that is not finite ("reject all") is left out.
    """
    figure, axes = _figure(7.0, 4.0)
    _draw_densities(axes, scores, is_target)
    for number, (label, threshold) in enumerate(thresholds.items()):
        if math.isfinite(threshold):
            text = legend_text(f"threshold, {label}: {threshold:.4g}", 40)
            axes.axvline(threshold, label=text, **line_look(number + 1))
    axes.set(xlabel="score (higher = more alike)", ylabel="density (per unit of score)")
    quiet_axes(axes)
    _legend_below(figure, axes.get_legend_handles_labels()[0], num_columns=2)
    return figure


def _draw_densities(axes: Axes, values: np.ndarray, is_target: np.ndarray) -> None:
    """Draw the densities of non-target and target ``values``, (trials,), over the same bins."""
    bins = np.histogram_bin_edges(values, int(np.clip(math.sqrt(values.size), 12, 100)))
    for kind, chosen, colour, hatch in (("non-target", ~is_target, ORANGE, "//"), ("target", is_target, BLUE, "")):
        style = {"color": colour, "histtype": "stepfilled", "alpha": 0.55, "hatch": hatch, "edgecolor": colour}
        axes.hist(values[chosen], bins=bins, density=True, label=f"{kind} ({chosen.sum():,} trials)", **style)


PROBABILITIES = (1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0 - 1e-4)  # ticks


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """Trials in bins of their log-likelihood ratio (LLR), each array (bins,).

    stated : LLR equivalent to the mean posterior of the trials of a bin.
    observed, lower, upper : LLR equivalent to its share of targets, with a binomial 95 % interval; infinite where a bin
        has one kind of trial only.
    num_trials : trials in the bin.
    """

    stated: np.ndarray
    observed: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    num_trials: np.ndarray


def calibration_bins(llrs: np.ndarray, is_target: np.ndarray, num_bins: int = 20) -> CalibrationBins:
    """Sort trials into bins of equal weight, each kind of trial having half of the weight.

    Arguments
    ---------
    llrs : (trials,) float, natural logarithm.
    is_target : (trials,) bool.
    num_bins : maximum; equal LLRs are in the same bin.
    """
    order = np.argsort(llrs)
    llrs, is_target = llrs[order].astype(np.float64), is_target[order]
    weights = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
    first = np.searchsorted(np.cumsum(weights), np.arange(num_bins) / num_bins, side="right")
    starts = np.unique(np.searchsorted(llrs, llrs[np.minimum(first, llrs.size - 1)]))
    num_trials, num_targets = np.diff(np.append(starts, llrs.size)), np.add.reduceat(is_target.astype(int), starts)
    prior = logit(is_target.mean())  # log-odds of a target among these trials
    log_target, log_nontarget = (np.logaddexp.reduceat(log_expit(s * (llrs + prior)), starts) for s in (1.0, -1.0))
    shares = (num_targets / num_trials, *_binomial_interval(num_targets, num_trials))
    return CalibrationBins(log_target - log_nontarget - prior, *(logit(share) - prior for share in shares), num_trials)


def _binomial_interval(num_hits: np.ndarray, num_trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Clopper and Pearson's 95 % interval of a share, (bins,) each."""
    num_misses = num_trials - num_hits
    lower = np.where(num_hits > 0, betaincinv(np.maximum(num_hits, 1), num_misses + 1, 0.025), 0.0)
    upper = np.where(num_misses > 0, betaincinv(num_hits + 1, np.maximum(num_misses, 1), 0.975), 1.0)
    return lower, upper


def calibration_figure(llrs: np.ndarray, is_target: np.ndarray) -> Figure:
    """Draw observed against stated LLRs, and below them the densities of both kinds of trial.

    Arguments: as ``calibration_bins``.
    """
    bins = calibration_bins(llrs, is_target)
    shown = [np.quantile(llrs[kind], [0.001, 0.999]) for kind in (is_target, ~is_target)]
    shown = np.concatenate([*shown, bins.stated, bins.observed[np.isfinite(bins.observed)]])
    limits = shown.min() - 0.5, shown.max() + 0.5
    figure, (top, below) = _figure(6.6, 7.0, nrows=2, sharex=True, height_ratios=(3, 1))
    top.plot(limits, limits, color="0.4", linestyle="--", label="well calibrated")
    top.vlines(bins.stated, bins.lower.clip(*limits), bins.upper.clip(*limits), color=BLUE, linewidth=1.5)
    text = "bins of trials with binomial 95 % intervals, too narrow since trials share speakers; at the edge: bins of "
    text = legend_text(f"{text}one kind of trial only")
    top.plot(bins.stated, bins.observed.clip(*limits), "o", color=BLUE, markersize=6, clip_on=False, label=text)
    _draw_densities(below, llrs, is_target)
    top.set(xlim=limits, ylim=limits, ylabel="observed log-likelihood ratio (natural log)")
    below.set(xlabel="stated log-likelihood ratio (natural log)", ylabel="density")
    for axes in (top, below):
        quiet_axes(axes)
    second = top.secondary_xaxis("top")
    second.xaxis.set_major_locator(FixedLocator(logit(PROBABILITIES)))
    second.xaxis.set_major_formatter(FuncFormatter(lambda llr, _: f"{100.0 * expit(llr):.6g}"))
    second.set_xlabel("as probability of a target at even prior odds (%)")
    handles = [handle for axes in (top, below) for handle in axes.get_legend_handles_labels()[0]]
    _legend_below(figure, handles, top=0.6)
    return figure


Row = tuple[str, Interval | None, str]  # name, EER (a fraction; None: not measured), remark


def eers_figure(panels: Mapping[str, Sequence[Row]], reference: tuple[str, Interval]) -> Figure:
    """Draw EERs with their 95 % intervals, row by row, and that of a reference as a line.

    Arguments
    ---------
    panels : title -> its rows, from top to bottom. Without an EER a row shows a dash.
    reference : name and EER.
    """
    sizes = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(8.0, 1.3 + 0.3 * sum(sizes) + 0.4 * len(sizes)), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[1 + size for size in sizes])
    name, overall = reference
    for axes, (title, rows) in zip(all_axes[:, 0], panels.items(), strict=True):
        axes.axvspan(overall.lower, overall.upper, color="0.9", zorder=0)
        line = axes.axvline(overall.estimate, color=VERMILION, linestyle="--", zorder=1)
        _draw_rows(axes, rows)
        axes.set_title(legend_text(title), loc="left", fontsize=10, fontweight="bold")
    known = [eer for rows in panels.values() for _, eer, _ in rows if eer is not None]
    ends = [eer.upper if eer.upper < 1.0 else eer.estimate for eer in (overall, *known)]  # 1.0: nothing is known
    axes.set(xlim=(0.0, min(1.0, max(0.01, 1.08 * max(ends)))), xlabel="EER (%) with 95 % interval")
    axes.xaxis.set_major_formatter(PER_CENT)
    text = f"{name}: {per_cent(overall.estimate, (overall.lower, overall.upper))}, interval grey"
    figure.legend([line], [legend_text(text)], loc="outside lower center", frameon=False)
    return figure


def _draw_rows(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw dots with error bars, names at the left and figures at the right."""
    known = [(place, eer) for place, (_, eer, _) in enumerate(rows) if eer is not None]
    if known:
        places, eers = zip(*known, strict=True)
        estimates = [eer.estimate for eer in eers]
        axes.errorbar(estimates, places, xerr=_error_bar(eers), fmt="o", color=BLUE, markersize=7, elinewidth=2)
    words = [per_cent(eer and eer.estimate, eer and (eer.lower, eer.upper)) for _, eer, _ in rows]
    figures = [f"{text}   {remark}" for text, (_, _, remark) in zip(words, rows, strict=True)]
    quiet_axes(axes)
    axes.set_yticks(range(len(rows)), [_row_name(name) for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), figures)
    right.spines["right"].set_visible(False)
    for each in (axes, right):
        each.tick_params(axis="y", length=0)


def _row_name(name: str) -> str:
    return legend_text(textwrap.shorten(name, 36, placeholder=" ...") or "(none)")


MOST_COLOURED = len(LINE_COLOURS) * len(MARKERS)  # speakers that colours with markers can tell apart
LEGEND_ROWS = 28


def embedding_map_figure(embeddings: np.ndarray, speakers: np.ndarray) -> Figure:
    """Draw each utterance on the first two principal components of the length-normalised embeddings.

    Up to 56 speakers get a colour and a marker each; of more, all are grey.

    Arguments
    ---------
    embeddings : (utterances, dims) finite float, 2 or more of each, none of length 0.
    speakers : (utterances,) the speaker of each.
    """
    speakers = np.asarray(speakers).astype(str)
    names = np.unique(speakers)
    directions = np.asarray(embeddings, np.float64)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    directions -= directions.mean(axis=0)
    variances, axes_of_space = np.linalg.eigh(directions.T @ directions)  # ascending
    places = directions @ axes_of_space[:, :-3:-1]  # (utterances, 2)
    shares = variances[:-3:-1] / max(variances.sum(), np.finfo(np.float64).tiny)
    num_columns = math.ceil(min(len(names), MOST_COLOURED) / LEGEND_ROWS)
    figure = Figure(figsize=(6.8 + 1.6 * num_columns, 6.6), layout="constrained")
    axes = figure.add_subplot()
    if len(names) > MOST_COLOURED:
        axes.plot(*places.T, ".", color="0.6", markersize=4, label=f"{len(names):,} speakers")
    else:
        for number, name in enumerate(names):
            marker = MARKERS[number // len(LINE_COLOURS)]
            style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "alpha": 0.7, "markeredgewidth": 0.0}
            axes.plot(*places[speakers == name].T, marker, markersize=6, label=legend_text(name, 30), **style)
    axes.set_xlabel(f"first principal component ({100.0 * shares[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal component ({100.0 * shares[1]:.0f} % of the variance)")
    axes.set_aspect("equal")
    quiet_axes(axes)
    figure.legend(loc="outside right upper", ncols=max(1, num_columns), frameon=False, title="speaker")
    return figure


def draw_evaluation(evaluation: Evaluation, groups: GroupReport, others: Mapping[str, Judged], folder: Path) -> None:
    """Write the plots of a report to ``folder``.

    Always ``det.png``, ``roc.png`` and ``scores.png``; ``calibration.png``, ``conditions.png``, ``groups.png``,
    ``det_systems.png`` and ``embeddings.png`` where there are LLRs, conditions, groups, other systems, embeddings.
    """
    clean, lists = evaluation.clean, evaluation.lists
    at = {}
    if evaluation.thresholds:
        at = {use: evaluation.thresholds.score_at(use) for use in evaluation.thresholds.points}
    at = {use: score for use, score in (at | {"EER": clean.summary["eer_threshold"]}).items() if score is not None}
    figures = {
        "det.png": det_figure({judged.name: judged for judged in lists if judged.frr_at}),
        "roc.png": roc_figure(clean.name, clean, clean.points),
        "scores.png": score_histograms_figure(clean.trials.scores, clean.trials.is_target, at),
    }
    if clean.llrs is not None:
        figures["calibration.png"] = calibration_figure(clean.llrs, clean.trials.is_target)
    if len(lists) > 1:
        rows = [(judged.name, judged.eer, "") for judged in lists]
        figures["conditions.png"] = eers_figure({"": rows}, (clean.name, clean.eer))
    if groups.tables:
        panels = {table.title: [_group_row(row) for row in table.rows] for table in groups.tables}
        figures["groups.png"] = eers_figure(panels, ("all trials", groups.overall.eer))
    if others:
        figures["det_systems.png"] = det_figure({"this system": clean, **others})
    if clean.trials.embeddings is not None:
        speakers = clean.trials.utterances["spk_id"].to_numpy()
        figures["embeddings.png"] = embedding_map_figure(clean.trials.embeddings, speakers)
    for name, figure in figures.items():
        save_figure(figure, folder / name)


def _group_row(group: GroupResult) -> Row:
    """Return a group as a row of ``eers_figure``."""
    speakers = f"{group.num_speakers:,} speaker{'' if group.num_speakers == 1 else 's'}"
    return group.name, group.eer, f"{speakers}, {group.num_target + group.num_nontarget:,} trials"
