"""Error rates of many speaker resamples of one list of trials, exact, without sorting the trials again.

A resample gives each speaker a multiplicity; a trial weighs what its speakers' multiplicities make it (see
``voice_biometrics.metrics.bootstrap`` for which). The trials are sorted by score once and cut into blocks. One pass
multiplies
and adds the weights of every block for hundreds of resamples at a time, as matrix products; the operating points
inside a block are only laid out where a measure needs them. Weights are whole numbers below 2^24 per block, so the
single precision of the sums loses nothing: a resample's figures equal those of the trials repeated as often as drawn.

What an interval can be put around: EER, minDCF, actDCF, C_llr, FAR and FRR at a threshold, FRR at a FAR.

Each measure reads its value off resampled trials. Where it lies inside a block of trials it names the two cuts to look
between, and ``voice_biometrics.metrics.error_rates`` reads it there: estimates and resamples share one convention.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import ErrorRates, check_far, normalised_weights
from voice_biometrics.metrics.llr import bayes_threshold

TRIALS_PER_BLOCK = 256  # trials times resamples of a block stay in the cache
MIN_TRIALS_PER_BLOCK, MAX_BLOCKS = 16, 2**14
NUM_BLOCKS_WANTED = 2**12


@dataclass(frozen=True, eq=False)
class ResampledTrials:
    """Weighted counts of some resamples of a list of trials, each resample with both kinds of trials.

    frr, far : (cuts, resamples) float, rates when the trials from each cut on are accepted; from accept all on.
    cllr : (resamples,) float in bits, or None if no costs were given.
    """

    trials: "SortedTrials"
    multiplicity: np.ndarray  # (resamples, speakers + 1)
    target_below: np.ndarray  # (cuts, resamples)
    nontarget_below: np.ndarray  # (cuts, resamples)
    frr: np.ndarray
    far: np.ndarray
    cllr: np.ndarray | None

    def rates_between(self, resample: int, first_cut: int, last_cut: int) -> ErrorRates:
        """Return every operating point of one resample from one cut to another, both included."""
        start, stop = self.trials.cuts[[first_cut, last_cut]]
        weights = self.trials.weights(self.multiplicity[resample], start, stop)
        ends = self.trials.ends_tie[start:stop]
        below = np.cumsum(weights, dtype=np.float64)[ends]
        weights *= self.trials.is_target[start:stop]
        target_below = np.cumsum(weights, dtype=np.float64)[ends]
        num_target, num_nontarget = self.target_below[-1, resample], self.nontarget_below[-1, resample]
        target_below, nontarget_below = (
            counted[first_cut, resample] + np.append(0.0, inside)
            for counted, inside in ((self.target_below, target_below), (self.nontarget_below, below - target_below))
        )
        return ErrorRates(
            thresholds=self.trials.thresholds_between(start, stop),
            far=(num_nontarget - nontarget_below) / num_nontarget,
            frr=target_below / num_target,
            num_target=int(num_target),
            num_nontarget=int(num_nontarget),
        )

    def cut_at(self, threshold: float) -> int:
        """Return the cut from which on scores reach ``threshold``, one of those that the trials were cut at."""
        first_trial = np.searchsorted(self.trials.scores, threshold)
        return int(np.searchsorted(self.trials.cuts, first_trial))


class SortedTrials:
    """Trials in the order of their scores, cut into blocks that split no tie.

    Arguments
    ---------
    scores : (trials,) finite float, higher = more alike.
    is_target : (trials,) bool.
    enrol_speaker, test_speaker : (trials,) int from 0 to ``num_speakers - 1``.
    num_speakers : how many speakers a resample draws.
    thresholds : further places to cut at, so that rates there can be read from the cuts.
    costs : (trials,) float, what each trial adds to C_llr; None if that is not asked for.
    """

    def __init__(
        self,
        scores: np.ndarray,
        is_target: np.ndarray,
        enrol_speaker: np.ndarray,
        test_speaker: np.ndarray,
        num_speakers: int,
        thresholds: tuple[float, ...] = (),
        costs: np.ndarray | None = None,
    ) -> None:
        order = np.argsort(scores)
        self.scores = scores[order]
        self.is_target = is_target[order]
        self.ends_tie = np.append(self.scores[1:] != self.scores[:-1], True)
        self._costs = None if costs is None else costs[order].astype(np.float32)
        # A target's second factor is the extra last speaker, whose multiplicity is 1 in every resample.
        self._first = enrol_speaker[order].astype(np.int32)
        self._second = np.where(self.is_target, num_speakers, test_speaker[order]).astype(np.int32)
        self.cuts = self._cuts(np.searchsorted(self.scores, thresholds))

    def _cuts(self, further: np.ndarray) -> np.ndarray:
        """Return where the blocks start, and the number of trials: each the first trial of a tie."""
        num_trials = self.scores.size
        length = np.clip(num_trials // NUM_BLOCKS_WANTED, MIN_TRIALS_PER_BLOCK, TRIALS_PER_BLOCK)
        wanted = np.arange(0, num_trials, max(int(length), num_trials // MAX_BLOCKS))
        starts_tie = np.append(0, np.flatnonzero(self.ends_tie) + 1)  # and the number of trials
        return np.union1d(np.append(starts_tie[np.searchsorted(starts_tie, wanted)], num_trials), further)

    def weights(self, multiplicity: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the weight of the trials from ``start`` to ``stop``: (trials,), or (trials, resamples)."""
        weights = multiplicity.take(self._first[start:stop], axis=0)
        weights *= multiplicity.take(self._second[start:stop], axis=0)
        return weights

    def thresholds_between(self, start: int, stop: int) -> np.ndarray:
        """Return the distinct scores of the trials from ``start`` to ``stop`` and the next one above (inf: none)."""
        above = self.scores[stop] if stop < self.scores.size else np.inf
        return np.append(self.scores[start:stop][self.ends_tie[start:stop]], above)

    def resample(self, multiplicity: np.ndarray) -> tuple[ResampledTrials, np.ndarray]:
        """Count the weights of all blocks under each resample.

        Arguments
        ---------
        multiplicity : (resamples, speakers) int, how often each resample drew each speaker.

        Returns
        -------
        The counts of the resamples that have trials of both kinds, and (resamples,) bool which ones these are.
        """
        ones = np.ones((len(multiplicity), 1))
        multiplicity = np.concatenate([multiplicity, ones], axis=1).astype(np.float32)  # (resamples, speakers + 1)
        sums = self._block_sums(np.ascontiguousarray(multiplicity.T))  # (blocks, rows, resamples)
        usable = (sums[:, :2].sum(axis=0) > 0.0).all(axis=0)
        sums = sums[:, :, usable]
        below = np.zeros((len(sums) + 1, 2, sums.shape[2]))
        np.cumsum(sums[:, :2], axis=0, out=below[1:])
        target_below, nontarget_below = below[:, 0], below[:, 1]
        num_target, num_nontarget = below[-1]
        cllr = None
        if self._costs is not None:
            target_cost, nontarget_cost = sums[:, 2:].sum(axis=0)
            cllr = (target_cost / num_target + nontarget_cost / num_nontarget) / 2.0
        resampled = ResampledTrials(
            trials=self,
            multiplicity=multiplicity[usable],
            target_below=target_below,
            nontarget_below=nontarget_below,
            frr=target_below / num_target,
            far=(num_nontarget - nontarget_below) / num_nontarget,
            cllr=cllr,
        )
        return resampled, usable

    def _block_sums(self, multiplicity: np.ndarray) -> np.ndarray:
        """Sum weights per block: (speakers + 1, resamples) -> (blocks, target / non-target (and costs), resamples)."""
        sums = np.zeros((self.cuts.size - 1, 2 if self._costs is None else 4, multiplicity.shape[1]))
        for block, (start, stop) in enumerate(zip(self.cuts[:-1], self.cuts[1:], strict=True)):
            for first in range(start, stop, TRIALS_PER_BLOCK):
                last = min(first + TRIALS_PER_BLOCK, stop)
                sums[block] += self._kinds(first, last) @ self.weights(multiplicity, first, last)
        return sums

    def _kinds(self, start: int, stop: int) -> np.ndarray:
        """Rows that pick each kind's weights, and cost them: (2 or 4, trials)."""
        is_target = self.is_target[start:stop]
        kinds = np.stack([is_target, ~is_target]).astype(np.float32)
        return kinds if self._costs is None else np.concatenate([kinds, kinds * self._costs[start:stop]])


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
