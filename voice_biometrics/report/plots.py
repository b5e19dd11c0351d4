"""Pictures of error trade-offs: DET curves with their interval bands, and the ROC near a FAR of zero.

Each ``plot_*`` writes one PNG; its ``*_figure`` twin returns the matplotlib Figure.

Source: Martin et al. 1997, "The DET curve in assessment of detection task performance" (normal-deviate axes);
the limits of what trials support are those of ``voice_biometrics.metrics.error_rates``.

The picture that shows whether log-likelihood ratios (LLRs) are honest: what was stated against what was so.

Trials are sorted into bins of their LLR: of 100 that are stated to be targets with a probability of 0.8, 80 should be.

Source: Brocker and Smith 2007, "Increasing the reliability of reliability diagrams"; Clopper and Pearson 1934
(intervals of a share).

Pictures of EERs side by side, each with its 95 % interval: by group of speakers, and by condition.

Each ``plot_*`` writes one PNG; its ``*_figure`` twin returns the matplotlib Figure.

A map of utterances: their embeddings in the plane that keeps most of their spread, coloured by speaker.

A plane shows a part of what the embeddings tell apart, and the axes say how large a part: clouds that lie apart here
are apart, clouds that overlap here need not be confused.
"""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import betaincinv, expit, log_expit, logit, ndtri

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    LINE_COLOURS,
    LINE_STYLES,
    MARKERS,
    ORANGE,
    PURPLE,
    VERMILION,
    halo,
    legend_text,
    line_look,
    quiet_axes,
    save_figure,
)
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.error_rates import (
    ERRORS_FOR_30_PER_CENT,
    ERRORS_FOR_ANY_CLAIM,
    ErrorRates,
    checked_trials,
)
from voice_biometrics.metrics.operating_points import PointResult

NUM_BINS = 20
PROBABILITIES = (0.5, 0.99, 0.01, 0.9, 0.1, 1.0 - 1e-4, 1e-4, 1.0 - 1e-6, 1e-6)  # ticks, the dearest first


@dataclass(frozen=True, eq=False)
class CalibrationBins:
    """Trials in bins of their LLR, each array (bins,).

    stated : the LLR that the mean posterior of the bin's trials amounts to.
    observed, lower, upper : the LLR that its share of targets amounts to, and the ends of a binomial 95 % interval;
        infinite where a bin holds one kind of trial only.
    num_trials : trials in the bin.
    """

    stated: np.ndarray
    observed: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    num_trials: np.ndarray


def calibration_bins(llrs: np.ndarray, is_target: np.ndarray, num_bins: int = NUM_BINS) -> CalibrationBins:
    """Sort trials into bins of equal weight, each kind of trial weighing one half, and compare stated with observed.

    Arguments
    ---------
    llrs : (trials,) float, natural log-likelihood ratios.
    is_target : (trials,) bool, or 0 and 1.
    num_bins : at most so many; equal LLRs share a bin.

    Raises
    ------
    InputError : as ``metrics.error_rates``.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    order = np.argsort(llrs)
    llrs, is_target = llrs[order].astype(np.float64), is_target[order]
    starts = _bin_starts(llrs, is_target, num_bins)
    num_trials = np.diff(np.append(starts, llrs.size))
    num_targets = np.add.reduceat(is_target.astype(np.int64), starts)
    prior_odds = logit(is_target.mean())  # in these trials, natural logarithm
    log_posterior, log_rest = (log_expit(side * (llrs + prior_odds)) for side in (1.0, -1.0))
    stated = np.logaddexp.reduceat(log_posterior, starts) - np.logaddexp.reduceat(log_rest, starts) - prior_odds
    shares = (num_targets / num_trials, *_binomial_interval(num_targets, num_trials))
    return CalibrationBins(stated, *(logit(share) - prior_odds for share in shares), num_trials)


def plot_calibration(llrs: np.ndarray, is_target: np.ndarray, path: Path) -> None:
    """Write the picture of ``calibration_figure`` to ``path`` (PNG)."""
    save_figure(calibration_figure(llrs, is_target), path)


def calibration_figure(llrs: np.ndarray, is_target: np.ndarray) -> Figure:
    """Draw observed against stated LLRs, the diagonal being honest, and below it the densities of both kinds of trial.

    Arguments
    ---------
    llrs : (trials,) float, natural log-likelihood ratios.
    is_target : (trials,) bool, or 0 and 1.

    Raises
    ------
    InputError : as ``metrics.error_rates``.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    bins = calibration_bins(llrs, is_target)
    figure = Figure(figsize=(6.6, 8.4), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    limits = _limits((llrs[is_target], llrs[~is_target]), bins)
    top.plot(limits, limits, color="0.4", linestyle="--", label="honest: what is stated is so")
    _draw_bins(top, bins, limits)
    top.set(xlim=limits, ylim=limits, ylabel="observed log-likelihood ratio (natural logarithm)")
    draw_densities(below, llrs, is_target)
    below.set(xlabel="stated log-likelihood ratio (natural logarithm)", ylabel="density")
    for axes in (top, below):
        quiet_axes(axes)
    _probability_axes(top, limits)
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def _bin_starts(llrs: np.ndarray, is_target: np.ndarray, num_bins: int) -> np.ndarray:
    """Return where bins of equal weight start in the sorted trials, (bins,) int; tied LLRs are not parted."""
    weights = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
    weight_before = np.cumsum(weights) - weights
    tie_starts = np.flatnonzero(np.append(True, llrs[1:] != llrs[:-1]))
    number = np.floor(weight_before[tie_starts] * num_bins + 1e-9)
    return tie_starts[np.append(True, number[1:] != number[:-1])]


def _binomial_interval(num_hits: np.ndarray, num_trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of Clopper and Pearson's 95 % interval of a share, (bins,) each."""
    num_misses = num_trials - num_hits
    lower = np.where(num_hits > 0, betaincinv(np.maximum(num_hits, 1), num_misses + 1, 0.025), 0.0)
    upper = np.where(num_misses > 0, betaincinv(num_hits + 1, np.maximum(num_misses, 1), 0.975), 1.0)
    return lower, upper


def _limits(kinds: tuple[np.ndarray, np.ndarray], bins: CalibrationBins) -> tuple[float, float]:
    """Return the range of both axes: all bins, and of each kind of trial all but the outermost thousandth."""
    tails = [np.quantile(llrs, [0.001, 0.999]) for llrs in kinds]
    shown = np.concatenate([*tails, bins.stated, bins.observed[np.isfinite(bins.observed)]])
    return float(shown.min()) - 0.5, float(shown.max()) + 0.5


def _draw_bins(axes: Axes, bins: CalibrationBins, limits: tuple[float, float]) -> None:
    """Draw each bin with its interval; one that holds a single kind of trial is an arrow at the edge."""
    axes.vlines(bins.stated, np.clip(bins.lower, *limits), np.clip(bins.upper, *limits), color=BLUE, linewidth=1.5)
    mixed = np.isfinite(bins.observed)
    text = "trials by stated ratio, with binomial 95 % intervals (too short: trials share speakers)"
    axes.plot(bins.stated[mixed], bins.observed[mixed], "o", color=BLUE, markersize=6, label=legend_text(text))
    for value, edge, marker, kind in (
        (np.inf, limits[1], "^", "targets only"),
        (-np.inf, limits[0], "v", "non-targets only"),
    ):
        chosen = bins.observed == value
        if chosen.any():
            places = bins.stated[chosen], np.full(chosen.sum(), edge)
            style = {"color": VERMILION, "markersize": 8, "clip_on": False, "linestyle": "none"}
            axes.plot(*places, marker=marker, label=f"{kind}: off the scale", **style)


def _probability_axes(axes: Axes, limits: tuple[float, float]) -> None:
    """Say on the other two sides what a ratio means where a target is as likely as not beforehand."""
    places: list[float] = []
    for place in logit(PROBABILITIES):
        apart = all(abs(place - other) > (limits[1] - limits[0]) / 11 for other in places)  # or they would overlap
        if limits[0] < place < limits[1] and apart:
            places.append(place)
    for side, axis_name in (("top", "xaxis"), ("right", "yaxis")):
        second = axes.secondary_xaxis("top") if side == "top" else axes.secondary_yaxis("right")
        axis = getattr(second, axis_name)
        axis.set_major_locator(FixedLocator(places))
        axis.set_major_formatter(FuncFormatter(lambda llr, _: f"{100.0 * expit(llr):.6g}"))
        axis.set_label_text("as probability of a target, at even odds (%)")


LABEL_WIDTH = 36  # characters of a name; longer ones are cut
ROW_IN = 0.30  # inches


@dataclass(frozen=True)
class GroupEer:
    """The EER of a group of trials, a fraction, with its 95 % interval; None for what cannot be measured.

    column : what divides the trials ("gender"). group : its value ("f").
    num_speakers, num_trials : what the figures rest on.
    """

    column: str
    group: str
    eer: float | None
    lower: float | None
    upper: float | None
    num_speakers: int
    num_trials: int


@dataclass(frozen=True)
class _Row:
    """A line of the picture: a heading, or a name with an EER (fractions) and a remark."""

    name: str
    is_heading: bool = False
    eer: float | None = None
    lower: float | None = None
    upper: float | None = None
    remark: str = ""


def plot_group_eers(groups: Sequence[GroupEer], overall: Interval, path: Path) -> None:
    """Write the picture of ``group_eers_figure`` to ``path`` (PNG)."""
    save_figure(group_eers_figure(groups, overall), path)


def plot_condition_eers(eers: Mapping[str, Interval], path: Path) -> None:
    """Write the picture of ``condition_eers_figure`` to ``path`` (PNG)."""
    save_figure(condition_eers_figure(eers), path)


def group_eers_figure(groups: Sequence[GroupEer], overall: Interval) -> Figure:
    """Draw the EER of each group with its interval, column by column, and that of all trials as a line.

    A group whose EER is None (a single speaker, say) keeps its row and shows a dash; an EER without interval is a
    hollow dot.

    Arguments
    ---------
    groups : in the order of the picture; groups of one column stand together.
    overall : the EER of all trials.
    """
    rows = []
    for column, members in groupby(groups, key=lambda group: group.column):
        rows.append(_Row(column, is_heading=True))
        for member in members:
            counts = f"{_counted(member.num_speakers, 'speaker')}, {_counted(member.num_trials, 'trial')}"
            rows.append(_Row(member.group, False, member.eer, member.lower, member.upper, counts))
    return _rows_figure(rows, overall, "all trials")


def condition_eers_figure(eers: Mapping[str, Interval]) -> Figure:
    """Draw the EER of each condition with its interval, and that of the first, the clean one, as a line.

    Arguments
    ---------
    eers : name of the condition -> EER, a fraction; the clean one comes first.
    """
    rows = [_Row(name, False, found.estimate, found.lower, found.upper) for name, found in eers.items()]
    name, clean = next(iter(eers.items()))
    return _rows_figure(rows, clean, name)


def _rows_figure(rows: Sequence[_Row], reference: Interval, reference_name: str) -> Figure:
    """Draw rows from top to bottom, figures in words at the right, and the reference as a line with its interval."""
    figure = Figure(figsize=(8.0, 1.4 + ROW_IN * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    low, high = 100.0 * reference.lower, 100.0 * reference.upper
    text = f"{reference_name}: {_in_words(reference.estimate, reference.lower, reference.upper)}, interval grey"
    axes.axvspan(low, high, color="0.9", zorder=0)
    line = axes.axvline(100.0 * reference.estimate, color=VERMILION, linestyle="--", zorder=1, label=legend_text(text))
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    _name_rows(axes, rows)
    ends = [row.upper for row in rows if row.upper is not None and row.upper < 1.0]  # 1.0: nothing is known
    ends += [reference.upper, *(row.eer for row in rows if row.eer is not None)]
    axes.set_xlim(0.0, 100.0 * min(1.0, 1.08 * max(ends)))
    axes.set_xlabel("EER (%), with 95 % interval")
    figure.legend(handles=[line], loc="outside lower center", frameon=False)
    return figure


def _draw_row(axes: Axes, place: int, row: _Row) -> None:
    """Draw the dot and the whisker of one row, as far as they are known."""
    if row.eer is None:
        return
    has_interval = row.lower is not None and row.upper is not None
    if has_interval:
        axes.plot([100.0 * row.lower, 100.0 * row.upper], [place] * 2, color=BLUE, linewidth=2.0, zorder=3)
    face = BLUE if has_interval else "white"
    axes.plot([100.0 * row.eer], [place], "o", color=BLUE, markerfacecolor=face, markersize=7, zorder=4, clip_on=False)


def _name_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    """Write names at the left, headings bold, and figures at the right."""
    places = range(len(rows))
    names = [legend_text(textwrap.shorten(row.name, LABEL_WIDTH, placeholder=" ...") or "(none)") for row in rows]
    axes.set_yticks(places, names)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.is_heading else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    quiet_axes(axes)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, ["" if row.is_heading else _figures(row) for row in rows])
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def _figures(row: _Row) -> str:
    """Say the figures of a row in words."""
    return "   ".join(filter(None, [_in_words(row.eer, row.lower, row.upper), row.remark]))


def _in_words(eer: float | None, lower: float | None, upper: float | None) -> str:
    """Word an EER and its interval in per cent."""
    if eer is None:
        return "–"
    interval = "" if lower is None or upper is None else f" ({100.0 * lower:.2f} to {100.0 * upper:.2f})"
    return f"{100.0 * eer:.2f} %{interval}"


def _counted(number: int, noun: str) -> str:
    """Return "1 speaker", "2,000 speakers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


MAX_TOLD_APART = 50  # speakers that colours with markers can tell apart
LEGEND_ROWS = 26


def plot_embedding_map(
    embeddings: np.ndarray, speakers: np.ndarray, path: Path, named: Collection[str] | None = None
) -> None:
    """Write the picture of ``embedding_map_figure`` to ``path`` (PNG)."""
    save_figure(embedding_map_figure(embeddings, speakers, named), path)


def embedding_map_figure(embeddings: np.ndarray, speakers: np.ndarray, named: Collection[str] | None = None) -> Figure:
    """Draw each utterance on the first two principal components of the length-normalised embeddings.

    Arguments
    ---------
    embeddings : (utterances, dims) float.
    speakers : (utterances,) the speaker of each.
    named : speakers to be coloured, numbered and listed, the most confused ones, say; the others are grey. By
        default all where they can be told apart (up to 50), and none where they are more.

    Raises
    ------
    InputError : fewer than 2 utterances or dimensions, shapes that differ, a value that is not finite, an embedding
        of zeros, or a named speaker without utterance.
    """
    speakers = np.asarray(speakers).astype(str)
    places, shares = _principal_plane(embeddings, speakers)
    present = pd.unique(np.sort(speakers))
    if named is None:
        named = present if present.size <= MAX_TOLD_APART else ()
    named = _checked_names(named, present)
    others = ~np.isin(speakers, named)
    num_columns = math.ceil((len(named) + others.any()) / LEGEND_ROWS)
    figure = Figure(figsize=(6.8 + 1.6 * num_columns, 6.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*places[others].T, ".", color="0.75", markersize=4, zorder=1)
    handles = [_draw_speaker(axes, number, name, places[speakers == name]) for number, name in enumerate(named)]
    _number_clouds(axes, [np.median(places[speakers == name], axis=0) for name in named], np.ptp(places, axis=0).max())
    if others.any():
        text = f"{present.size - len(named):,} {'other ' if named else ''}speakers"
        handles.append(Line2D([], [], marker=".", color="0.75", linestyle="none", label=text))
    axes.set_xlabel(f"first principal component ({100.0 * shares[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal component ({100.0 * shares[1]:.0f} % of the variance)")
    axes.set_aspect("equal")
    quiet_axes(axes)
    figure.legend(handles=handles, loc="outside right upper", ncols=num_columns, frameon=False, title="speaker")
    return figure


def _principal_plane(embeddings: np.ndarray, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the utterances' places (utterances, 2) and the share of the variance along each axis, (2,)."""
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or min(embeddings.shape) < 2 or speakers.shape != embeddings.shape[:1]:
        raise InputError(
            f"embeddings {embeddings.shape} with speakers {speakers.shape}: a map takes 2 or more utterances, 2 or "
            "more dimensions, and one speaker per utterance"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0.0)
    if not usable.all():
        raise InputError(f"utterance {int(np.argmin(usable))} (counted from 0): its embedding is zero or not finite")
    directions = embeddings / lengths[:, None]
    directions -= directions.mean(axis=0)
    variances, axes = np.linalg.eigh(directions.T @ directions)  # ascending; (dims, dims) however many utterances
    places = directions @ axes[:, :-3:-1]  # (utterances, 2)
    return places, variances[:-3:-1] / max(variances.sum(), np.finfo(np.float64).tiny)


def _checked_names(named: Collection[str], present: np.ndarray) -> list[str]:
    """Return the named speakers as text, each once, or raise InputError for one that has no utterance."""
    names = list(dict.fromkeys(str(name) for name in named))
    missing = [name for name in names if name not in set(present)]
    if missing:
        raise InputError(f"speaker {missing[0]!r} is to be named on the map, but has no utterance there")
    return names


def _draw_speaker(axes: Axes, number: int, name: str, places: np.ndarray) -> Line2D:
    """Draw a speaker's utterances, and return what the legend says."""
    marker = MARKERS[(number // len(LINE_COLOURS)) % len(MARKERS)]
    look = {"marker": marker, "color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": "none"}
    axes.plot(*places.T, markersize=5, alpha=0.7, markeredgewidth=0.0, zorder=2, **look)
    return Line2D([], [], markersize=7, label=legend_text(f"{number + 1}: {name}", 30), **look)


def _number_clouds(axes: Axes, centres: list[np.ndarray], extent: float) -> None:
    """Write each speaker's number, framed in his colour, at the centre of his cloud or as near as others allow."""
    for number, (x, y) in enumerate(_moved_apart(np.reshape(centres, (-1, 2)), 0.045 * extent)):
        frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}
        frame["edgecolor"] = LINE_COLOURS[number % len(LINE_COLOURS)]
        axes.text(x, y, str(number + 1), ha="center", va="center", fontsize=8, zorder=4, bbox=frame)


def _moved_apart(places: np.ndarray, distance: float) -> np.ndarray:
    """Return ``places`` (points, 2) with those that are too near pushed apart, until all keep about ``distance``."""
    turns = np.arange(len(places))[:, None]
    places = places + 1e-3 * distance * np.hstack([np.cos(turns), np.sin(turns)])  # no two in the very same place
    for _ in range(100):
        away = places[:, None] - places  # (points, points, 2)
        gaps = np.linalg.norm(away, axis=2)
        np.fill_diagonal(gaps, np.inf)
        if gaps.min(initial=np.inf) >= distance:
            break
        lacking = np.maximum(distance - gaps, 0.0) / 2.0
        places = places + (away / gaps[:, :, None] * lacking[:, :, None]).sum(axis=1)
    return places


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


def plot_score_histograms(
    scores: np.ndarray, is_target: np.ndarray, thresholds: Mapping[str, float | None], path: Path
) -> None:
    """Write the picture of ``score_histograms_figure`` to ``path`` (PNG)."""
    save_figure(score_histograms_figure(scores, is_target, thresholds), path)


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
