"""Figures of calibrated scores: actual DCF and C_llr; and of the best calibration possible: minC_llr, EER on the hull.

A calibrated score is a log-likelihood ratio (LLR): the natural logarithm of how much likelier it is from one speaker
than from two. Ties share one bin, a trial is accepted when ``llr >= threshold``, as everywhere in this package. The
EER on the convex hull of the ROC and minC_llr look at the order of the scores only, so they take any scores.

Source: Bruemmer and du Preez 2006, "Application-independent evaluation of speaker detection" (C_llr, minC_llr);
Bruemmer and de Villiers 2013, "The BOSARIS toolkit" (arXiv 1304.2865; PAV and the ROC convex hull).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from voice_biometrics.metrics.error_rates import (
    USUAL_COSTS,
    Cost,
    ErrorRates,
    checked_trials,
    dcf_entry,
    error_rates,
    meeting_point,
    normalised_weights,
)


@dataclass(frozen=True, eq=False)
class PavBins:
    """Scores pooled into bins whose share of targets grows: the best monotone calibration of these very trials.

    lowest, highest : (bins,) float, the ends of each bin on the scale of the scores.
    num_target, num_nontarget : (bins,) int, trials of each kind in each bin; never both 0.
    """

    lowest: np.ndarray
    highest: np.ndarray
    num_target: np.ndarray
    num_nontarget: np.ndarray

    def llrs(self) -> np.ndarray:
        """Return the log-likelihood ratio of each bin, (bins,): -inf where it has no target, inf no non-target."""
        with np.errstate(divide="ignore"):
            odds = np.log(self.num_target) - np.log(self.num_nontarget)
        return odds - np.log(self.num_target.sum() / self.num_nontarget.sum())

    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (FAR, FRR) at the corners of the convex hull of the ROC, (bins + 1,) each, from accept all on."""
        far = 1.0 - np.append(0, np.cumsum(self.num_nontarget)) / self.num_nontarget.sum()
        frr = np.append(0, np.cumsum(self.num_target)) / self.num_target.sum()
        return far, frr

    def equal_error_rate(self) -> float:
        """Return the EER on the convex hull: see ``rocch_eer``."""
        return meeting_point(*self.hull())[0]

    def min_cllr(self) -> float:
        """Return the C_llr of the bins' own log-likelihood ratios: see the function of the same name."""
        target, nontarget = self.num_target, self.num_nontarget
        mixed = (target > 0) & (nontarget > 0)  # a bin of one kind is certain, and right: it costs nothing
        target_share = target[mixed] / target.sum()
        nontarget_share = nontarget[mixed] / nontarget.sum()
        target_cost = target_share @ np.log2(1.0 + nontarget_share / target_share)
        nontarget_cost = nontarget_share @ np.log2(1.0 + target_share / nontarget_share)
        return float((target_cost + nontarget_cost) / 2.0)


def pav_bins(rates: ErrorRates) -> PavBins:
    """Pool adjacent distinct scores until the share of targets grows from bin to bin.

    Arguments
    ---------
    rates : every operating point of the trials, from ``metrics.error_rates``; the trials are not sorted again.
    """
    target = np.diff(np.rint(rates.frr * rates.num_target)).astype(np.int64)  # (distinct scores,)
    nontarget = np.diff(np.rint((1.0 - rates.far) * rates.num_nontarget)).astype(np.int64)
    count = target + nontarget
    first = isotonic_regression(target / count, weights=count).blocks[:-1]  # (bins,)
    last = np.append(first[1:], target.size) - 1
    return PavBins(
        lowest=rates.thresholds[first],
        highest=rates.thresholds[last],
        num_target=np.add.reduceat(target, first),
        num_nontarget=np.add.reduceat(nontarget, first),
    )


def rocch_eer(scores: np.ndarray, is_target: np.ndarray) -> float:
    """Return the equal error rate on the convex hull of the ROC, a fraction, at most 0.5 and at most the plain EER.

    The hull joins operating points that can be had by tossing a coin between two thresholds. It is steadier than the
    plain EER where errors are few, and every trial list has exactly one.

    Arguments, Raises: as ``metrics.error_rates``.
    """
    return pav_bins(error_rates(scores, is_target)).equal_error_rate()


def min_cllr(scores: np.ndarray, is_target: np.ndarray) -> float:
    """Return the C_llr, in bits, that these scores reach under the best monotone calibration (PAV).

    0 for perfectly separated scores, 1 for useless ones; what ``cllr`` has above it is loss by poor calibration.

    Arguments, Raises: as ``metrics.error_rates``.
    """
    return pav_bins(error_rates(scores, is_target)).min_cllr()


def cllr(llrs: np.ndarray, is_target: np.ndarray) -> float:
    """Return C_llr, in bits: the mean of ``log2(1 + e^-llr)`` over targets and ``log2(1 + e^llr)`` over the others.

    Each kind weighs one half, however many trials it has. 1 is what ignoring the scores (all LLRs 0) costs.

    Arguments, Raises: as ``metrics.error_rates``; ``llrs`` are natural log-likelihood ratios.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    cost = trial_costs(llrs, is_target)
    return float((cost[is_target].mean() + cost[~is_target].mean()) / 2.0)


def trial_costs(llrs: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Return what each trial adds to C_llr, (trials,) float64 in bits, before the mean over its kind."""
    return np.logaddexp(0.0, np.where(is_target, -llrs, llrs), dtype=np.float64) / np.log(2.0)


def bayes_threshold(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Return the LLR from which on accepting costs less than rejecting: ``ln(c_fa (1 - p) / (c_miss p))``.

    Raises InputError when the prior or a cost is out of its range.
    """
    miss_weight, fa_weight = normalised_weights(p_target, c_miss, c_fa)
    return float(np.log(fa_weight) - np.log(miss_weight))


def act_dcf(llrs: np.ndarray, is_target: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Return the normalised detection cost of deciding at the Bayes threshold of these costs.

    Normalised as ``metrics.min_dcf``, which it equals for perfectly calibrated scores; it can exceed 1.

    Arguments
    ---------
    llrs, is_target : as ``cllr``.
    p_target, c_miss, c_fa : as ``metrics.min_dcf``.

    Raises
    ------
    InputError : as ``metrics.min_dcf``.

    Source: NIST SRE 2019-2021 evaluation plans, "Performance Measurement" (actual detection cost).
    """
    threshold = bayes_threshold(p_target, c_miss, c_fa)
    return error_rates(llrs, is_target).dcf_at(threshold, p_target, c_miss, c_fa)


def llr_summary(llrs: np.ndarray, is_target: np.ndarray, costs: Sequence[Cost] = USUAL_COSTS) -> dict[str, object]:
    """Return the figures that need calibrated scores, ready for ``json.dump``; beside ``metrics.summary``.

    Keys: ``act_dcf`` (one entry per cost with ``value``, ``p_target``, ``c_miss``, ``c_fa`` and the Bayes
    ``threshold``), ``cllr`` and ``min_cllr`` (bits), ``rocch_eer`` (fraction).

    Arguments
    ---------
    llrs, is_target : as ``cllr``.
    costs : priors and costs of errors, for actDCF.

    Raises
    ------
    InputError : as ``act_dcf``.
    """
    rates = error_rates(llrs, is_target)
    bins = pav_bins(rates)
    thresholds = [bayes_threshold(*cost) for cost in costs]
    return {
        "act_dcf": [
            dcf_entry(cost, rates.dcf_at(threshold, *cost), threshold)
            for cost, threshold in zip(costs, thresholds, strict=True)
        ],
        "cllr": cllr(llrs, is_target),
        "min_cllr": bins.min_cllr(),
        "rocch_eer": bins.equal_error_rate(),
    }
