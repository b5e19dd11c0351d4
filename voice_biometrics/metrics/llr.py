"""C_llr and Bayes threshold of log-likelihood ratios (LLRs), and minC_llr and EER under the best calibration (PAV).

An LLR is the natural logarithm of how much likelier a score is for one speaker than for two. minC_llr and the EER on
the convex hull of the ROC depend on the order of the scores only, so they take any scores.

Source: Bruemmer and du Preez 2006, "Application-independent evaluation of speaker detection" (C_llr, minC_llr);
Bruemmer and de Villiers 2013, "The BOSARIS toolkit" (arXiv 1304.2865; PAV and the ROC convex hull).
"""

from dataclasses import dataclass

import numpy as np

from voice_biometrics.metrics.error_rates import ErrorRates, checked_trials, meeting_point, normalised_weights


@dataclass(frozen=True, eq=False)
class PavBins:
    """Distinct scores pooled by PAV (pool adjacent violators): the best monotone calibration of these trials.

    num_target, num_nontarget : (bins,) int, trials of each kind, never both 0; the share of targets grows with the bin.
    """

    num_target: np.ndarray
    num_nontarget: np.ndarray

    @classmethod
    def of(cls, rates: ErrorRates) -> "PavBins":
        """Pool adjacent distinct scores until the share of targets grows from bin to bin."""
        from scipy.optimize import isotonic_regression  # here: it takes half a second to import

        target = np.diff(np.rint(rates.frr * rates.num_target)).astype(np.int64)  # (distinct scores,)
        nontarget = np.diff(np.rint((1.0 - rates.far) * rates.num_nontarget)).astype(np.int64)
        count = target + nontarget
        first = isotonic_regression(target / count, weights=count).blocks[:-1]  # (bins,)
        return cls(np.add.reduceat(target, first), np.add.reduceat(nontarget, first))

    def equal_error_rate(self) -> float:
        """Return the EER on the convex hull of the ROC, a fraction, at most 0.5 and at most the plain EER.

        The hull joins operating points that a coin toss between two thresholds reaches. It is steadier than the plain
        EER where errors are few.
        """
        far = 1.0 - np.append(0, np.cumsum(self.num_nontarget)) / self.num_nontarget.sum()
        frr = np.append(0, np.cumsum(self.num_target)) / self.num_target.sum()
        return float(meeting_point(far, frr)[0])

    def min_cllr(self) -> float:
        """Return the C_llr, in bits, of these scores under the best monotone calibration.

        0 for perfectly separated scores, 1 for useless ones; the rest of C_llr is loss by poor calibration.
        """
        mixed = (self.num_target > 0) & (self.num_nontarget > 0)  # a bin of one kind is certain and costs nothing
        target_share = self.num_target[mixed] / self.num_target.sum()
        nontarget_share = self.num_nontarget[mixed] / self.num_nontarget.sum()
        target_cost = target_share @ np.log2(1.0 + nontarget_share / target_share)
        nontarget_cost = nontarget_share @ np.log2(1.0 + target_share / nontarget_share)
        return float((target_cost + nontarget_cost) / 2.0)


def cllr(llrs: np.ndarray, is_target: np.ndarray) -> float:
    """Return C_llr, in bits: the mean of ``log2(1 + e^-llr)`` over targets and ``log2(1 + e^llr)`` over non-targets.

    Each kind has weight one half, whatever its number of trials. 1 is the cost of ignoring the scores (all LLRs 0).

    Arguments
    ---------
    llrs : (trials,) float, natural log-likelihood ratios.
    is_target : (trials,) bool, or 0 and 1.

    Raises
    ------
    InputError : as ``error_rates``.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    cost = cllr_of_each(llrs, is_target)
    return float((cost[is_target].mean() + cost[~is_target].mean()) / 2.0)


def cllr_of_each(llrs: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Return each trial's contribution to C_llr, (trials,) float64 in bits, before the mean over its kind."""
    return np.logaddexp(0.0, np.where(is_target, -llrs, llrs), dtype=np.float64) / np.log(2.0)


def bayes_threshold(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Return the lowest LLR at which accepting costs no more than rejecting: ``ln(c_fa (1 - p) / (c_miss p))``.

    Raises InputError when the prior or a cost is out of its range.
    """
    miss_weight, fa_weight = normalised_weights(p_target, c_miss, c_fa)
    return float(np.log(fa_weight) - np.log(miss_weight))
