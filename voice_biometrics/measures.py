"""What an interval can be put around: EER, minDCF, actDCF, C_llr, FAR and FRR at a threshold, FRR at a FAR.

Each measure reads its value off resampled trials. Where it lies inside a block of trials it names the two cuts to look
between, and ``voice_biometrics.metrics`` reads it there: estimates and resamples share one convention.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from voice_biometrics.errors import InputError
from voice_biometrics.llr_metrics import bayes_threshold
from voice_biometrics.metrics import ErrorRates, check_far, normalised_weights
from voice_biometrics.resampling import ResampledTrials


class Measure(Protocol):
    """A figure of a list of trials."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Scores at which the trials must be cut."""

    def values(self, resampled: ResampledTrials) -> np.ndarray:
        """Return the figure of each resample, (resamples,)."""

    def highest_without_errors(self, frr: float, far: float) -> float:
        """Return what the figure is at most when the rates are at most ``frr`` and ``far``."""


@dataclass(frozen=True)
class CostAt:
    """A weighted sum of FRR and FAR at one threshold: use ``far_at``, ``frr_at`` or ``act_dcf_at``."""

    threshold: float
    miss_weight: float
    fa_weight: float

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):
            raise InputError("the threshold is NaN: give a score, or infinity for reject all")

    @property
    def thresholds(self) -> tuple[float, ...]:
        return (self.threshold,)

    def values(self, resampled: ResampledTrials) -> np.ndarray:
        cut = resampled.cut_at(self.threshold)
        return self.miss_weight * resampled.frr[cut] + self.fa_weight * resampled.far[cut]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return self.miss_weight * frr + self.fa_weight * far


def far_at(threshold: float) -> CostAt:
    """The share of non-target trials that score at least ``threshold``."""
    return CostAt(threshold, miss_weight=0.0, fa_weight=1.0)


def frr_at(threshold: float) -> CostAt:
    """The share of target trials that score less than ``threshold``."""
    return CostAt(threshold, miss_weight=1.0, fa_weight=0.0)


def act_dcf_at(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> CostAt:
    """The normalised cost of deciding at the Bayes threshold; the scores must be log-likelihood ratios."""
    return CostAt(bayes_threshold(p_target, c_miss, c_fa), *normalised_weights(p_target, c_miss, c_fa))


class _ReadBetweenCuts:
    """A measure that is read off the operating points between two cuts, which differ from resample to resample."""

    thresholds = ()

    def values(self, resampled: ResampledTrials) -> np.ndarray:
        first_cuts, last_cuts = self._cuts(resampled)
        spans = enumerate(zip(first_cuts, last_cuts, strict=True))
        return np.array([self._read(resampled.rates_between(number, first, last)) for number, (first, last) in spans])

    def _cuts(self, resampled: ResampledTrials) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the last cut to look between, (resamples,) int each."""
        raise NotImplementedError

    def _read(self, rates: ErrorRates) -> float:
        """Return the figure from the operating points around it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Eer(_ReadBetweenCuts):
    """The equal error rate, as ``metrics.equal_error_rate``."""

    def _cuts(self, resampled: ResampledTrials) -> tuple[np.ndarray, np.ndarray]:
        right = np.argmax(resampled.frr - resampled.far >= 0.0, axis=0)  # the first cut where FRR has caught up
        return right - 1, right

    def _read(self, rates: ErrorRates) -> float:
        return rates.equal_error_rate()[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return max(frr, far)


@dataclass(frozen=True)
class FrrAtFar(_ReadBetweenCuts):
    """The lowest FRR among thresholds with a FAR of at most ``max_far``, as ``metrics.frr_at_far``."""

    max_far: float

    def __post_init__(self) -> None:
        check_far(self.max_far)

    def _cuts(self, resampled: ResampledTrials) -> tuple[np.ndarray, np.ndarray]:
        right = np.argmax(resampled.far <= self.max_far, axis=0)
        return np.maximum(right - 1, 0), right

    def _read(self, rates: ErrorRates) -> float:
        return rates.frr_at_far(self.max_far)[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return frr


@dataclass(frozen=True)
class MinDcf(_ReadBetweenCuts):
    """The smallest normalised detection cost over all thresholds, as ``metrics.min_dcf``."""

    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    def __post_init__(self) -> None:
        normalised_weights(self.p_target, self.c_miss, self.c_fa)

    def _cuts(self, resampled: ResampledTrials) -> tuple[np.ndarray, np.ndarray]:
        miss_weight, fa_weight = normalised_weights(self.p_target, self.c_miss, self.c_fa)
        misses, false_accepts = miss_weight * resampled.frr, fa_weight * resampled.far
        cost = misses + false_accepts
        best = np.argmin(cost, axis=0)
        at_least = misses[:-1] + false_accepts[1:]  # no point of a block costs less
        may_be_lower = at_least < cost[best, np.arange(best.size)]  # (blocks, resamples)
        num_blocks = len(may_be_lower)
        any_lower = may_be_lower.any(axis=0)
        first = np.where(any_lower, np.argmax(may_be_lower, axis=0), best)
        last = np.where(any_lower, num_blocks - np.argmax(may_be_lower[::-1], axis=0), best)
        return np.minimum(first, best), np.maximum(last, best)

    def _read(self, rates: ErrorRates) -> float:
        return rates.min_dcf(self.p_target, self.c_miss, self.c_fa)[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        miss_weight, fa_weight = normalised_weights(self.p_target, self.c_miss, self.c_fa)
        return min(1.0, miss_weight * frr + fa_weight * far)


@dataclass(frozen=True)
class Cllr:
    """C_llr in bits, as ``llr_metrics.cllr``, to about 1e-6; the scores must be log-likelihood ratios."""

    thresholds = ()

    def values(self, resampled: ResampledTrials) -> np.ndarray:
        return resampled.cllr

    def highest_without_errors(self, frr: float, far: float) -> float:
        return 0.0  # never asked for: C_llr is not 0
