"""The picture that shows whether log-likelihood ratios (LLRs) are honest: what was stated against what was so.

Trials are sorted into bins of their LLR: of 100 that are stated to be targets with a probability of 0.8, 80 should be.

Source: Brocker and Smith 2007, "Increasing the reliability of reliability diagrams"; Clopper and Pearson 1934
(intervals of a share).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from scipy.special import betaincinv, expit, log_expit, logit

from voice_biometrics.metrics import checked_trials
from voice_biometrics.plots import draw_densities
from voice_biometrics.plots_style import BLUE, VERMILION, legend_text, quiet_axes, save_figure

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
