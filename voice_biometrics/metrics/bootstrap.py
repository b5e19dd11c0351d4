"""95 % confidence intervals of error rates, and of the difference of two systems, by bootstrap over speakers.

Trials share speakers, so they are not independent, and resampling trials gives intervals that are far too narrow. Here
each replicate draws as many speakers as there are, with replacement, and weights every trial by how often its speakers
were drawn:

- a non-target trial of speakers a and b by the product of both multiplicities: each copy of a meets each copy of b.
  This is exact for speaker effects, and up to sqrt(3) too wide (never too narrow) for effects of one pair of speakers.
- a target trial of speaker a by the multiplicity of a, once. The square of it (as in DCA-PLDA's script) would compare
  a copy with another copy, and spread the FRR 1.66 times too wide (variance 11/4).

Intervals are BCa (corrected for bias and skewness), widened for few speakers: the spread of n draws instead of n - 1,
and Student's t instead of the normal distribution. In simulations with known speaker effects and 25 to 60 speakers they
cover the true value in 0.93 to 0.96 of lists for FAR and FRR at a threshold, and in 0.90 to 0.94 for EER and minDCF
(whose estimate is too low on few speakers); with 10 speakers in about 0.90, minDCF 0.80. A bootstrap cannot see errors
that did not happen: a rate of 0 gets its upper end from the rule of 3, counting speakers (FRR) and pairs of speakers
(FAR) as independent draws.

Source: Owen 2007, "The pigeonhole bootstrap", and Owen and Eckles 2012, "Bootstrapping data arrays of arbitrary order"
(product weights); Poh, Martin and Bengio 2007, "Performance generalization in biometric authentication using joint
user-specific and sample bootstraps" (users first); Efron 1987, "Better bootstrap confidence intervals" (BCa, and the
acceleration from a jackknife); Hesterberg 2015, "What teachers should know about the bootstrap" (few units).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import (
    ERRORS_FOR_ANY_CLAIM,
    ErrorRates,
    check_far,
    checked_labels,
    checked_trials,
    normalised_weights,
)
from voice_biometrics.metrics.llr import bayes_threshold, cllr_of_each

NUM_REPLICATES, SEED = 1000, 0  # the same for all lists, so that lists of the same speakers compare
JACKKNIFE_GROUPS = 200  # at most so many groups of speakers are left out in turn
REPLICATES_AT_A_TIME = 256  # bounds the memory: a few counts per block and replicate
TRIALS_PER_BLOCK = 256  # a block's weights, trials x replicates, fit the cache
MIN_TRIALS_PER_BLOCK, MAX_BLOCKS = 16, 2**14
NUM_BLOCKS_WANTED = 2**12


@dataclass(frozen=True, eq=False)
class Spread:
    """Distribution of a figure over bootstrap replicates.

    estimate : the figure of all trials.
    replicates : (replicates,) float, sorted; those with both kinds of trials.
    num_degenerate : number of replicates without one kind of trials.
    num_units : number of units (speakers) in each draw, 2 or more.
    bias : z0 of BCa, the position of the estimate among the replicates, in standard deviations.
    acceleration : a of BCa, one sixth of the skewness of the units' contributions.
    """

    estimate: float
    replicates: np.ndarray
    num_degenerate: int
    num_units: float
    bias: float
    acceleration: float

    @classmethod
    def of(cls, estimate: float, replicates: np.ndarray, left_out: np.ndarray, num_units: float) -> "Spread":
        """Summarise a figure's replicates, NaN where a kind of trials was missing.

        Arguments
        ---------
        estimate : the figure of all trials.
        replicates : (replicates,) float, the figure under each draw of units.
        left_out : (groups,) float, the figure without each group of units in turn (jackknife).
        num_units : number of units.

        Raises
        ------
        InputError : no replicate has both kinds of trials.
        """
        usable = np.sort(replicates[~np.isnan(replicates)])
        if not usable.size:
            raise InputError(
                f"none of {replicates.size} draws of speakers had target and non-target trials: "
                "more speakers with both kinds are needed for an interval"
            )
        left_out = left_out[~np.isnan(left_out)]
        influence = left_out.mean() - left_out if left_out.size else np.zeros(1)
        power = np.sum(influence**2) ** 1.5
        acceleration = float(np.sum(influence**3) / (6.0 * power)) if power > 0.0 else 0.0
        num_degenerate = replicates.size - usable.size
        return cls(estimate, usable, num_degenerate, num_units, _normal_quantile(usable, estimate), acceleration)

    def ends(self) -> tuple[float, float]:
        """Return both ends of the 95 % interval."""
        deviations = self.bias + self._expansion() * stdtrit(self.num_units - 1, [0.025, 0.975])
        tails = ndtr(self.bias + _bend(deviations, -self.acceleration))
        lower, upper = np.quantile(self.replicates, tails)
        return float(lower), float(upper)

    def p_value_of(self, value: float) -> float:
        """Return the two-sided p-value of ``value``: 1 minus the confidence level whose interval ends there."""
        deviations = _bend(_normal_quantile(self.replicates, value) - self.bias, self.acceleration) - self.bias
        return float(2.0 * stdtr(self.num_units - 1, -np.abs(deviations) / self._expansion()))

    def _expansion(self) -> float:
        """Ratio of the spread of n - 1 draws to that of n."""
        return float(np.sqrt(self.num_units / (self.num_units - 1)))


def _bend(deviations: np.ndarray | float, acceleration: float) -> np.ndarray:
    """Return ``deviations / (1 + acceleration * deviations)``; infinite, with the same sign, from the pole on."""
    slope = 1.0 + acceleration * np.asarray(deviations)
    return np.where(slope > 0.0, deviations / np.where(slope > 0.0, slope, 1.0), np.copysign(np.inf, deviations))


def _normal_quantile(ordered: np.ndarray, value: float) -> float:
    """Return the position of ``value`` among sorted replicates in standard deviations; ties count half."""
    below, up_to = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
    return float(ndtri((below + up_to + 1.0) / (2.0 * ordered.size + 2.0)))


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    estimate : the figure of all trials. lower, upper : ends of the interval.
    num_replicates : usable replicates. num_degenerate : replicates without one kind of trials, left out.
    num_speakers : speakers in each draw.
    """

    estimate: float
    lower: float
    upper: float
    num_replicates: int
    num_degenerate: int
    num_speakers: int


@dataclass(frozen=True)
class Difference(Interval):
    """A figure of system A minus that of system B, with its 95 % interval.

    p_value : two-sided, of no difference. Below 0.05 where the interval excludes 0, unless that end is the outermost
        replicate (draw more then). With 25 speakers, simulated systems of equal quality came out below 0.05 in 0.04 to
        0.09 of lists: a value near 0.05 settles nothing.
    """

    p_value: float


class SpeakerBootstrap:
    """Draws of the speakers of one trial list, made once and applied to any scores of these trials.

    Arguments
    ---------
    is_target : (trials,) bool, or 0 and 1.
    enrol_speaker, test_speaker : (trials,) speaker of either side: text or numbers.
    num_replicates : number of draws.
    seed : of the draws; equal seeds and speakers give equal draws.

    Raises
    ------
    InputError : labels other than 0 and 1, or of one kind only; a missing speaker; labels that the speakers contradict
        (the first is named); fewer than two speakers.

    Attributes: ``is_target`` (trials,) bool; ``enrol_speaker``, ``test_speaker`` (trials,) int, numbered in the order
    of the speakers' names; ``num_speakers``.
    """

    def __init__(
        self,
        is_target: np.ndarray,
        enrol_speaker: np.ndarray,
        test_speaker: np.ndarray,
        *,
        num_replicates: int = NUM_REPLICATES,
        seed: int = SEED,
    ) -> None:
        self.is_target = checked_labels(is_target)
        self.enrol_speaker, self.test_speaker, self.num_speakers = _number_speakers(
            self.is_target, enrol_speaker, test_speaker
        )
        self._num_replicates = num_replicates
        draws = draw_speakers(self.num_speakers, num_replicates, seed).T
        # The last row is the second factor of every target trial.
        self._multiplicity = np.concatenate([draws, np.ones((1, draws.shape[1]))])  # (speakers + 1, draws)
        ones = np.ones(self.is_target.size)
        self._num_target, self._num_nontarget = self._target_total(ones), self._nontarget_total(ones)  # (draws,)
        self._usable = np.flatnonzero((self._num_target > 0) & (self._num_nontarget > 0))

    def intervals(self, scores: np.ndarray, measures: Mapping[Hashable, "Measure"]) -> dict[Hashable, Interval]:
        """Return each measure with its 95 % interval, under the names of ``measures``.

        Arguments
        ---------
        scores : (trials,) finite float, higher = more alike; log-likelihood ratios for actDCF and C_llr.
        measures : ``Eer``, ``MinDcf``, ``FrrAtFar``, ``Cllr``, ``far_at``, ``frr_at``, ``act_dcf_at``.

        Raises
        ------
        InputError : as ``error_rates``, or no replicate has both kinds of trials.
        """
        values = self.replicates(scores, measures)
        return {name: self._interval(measure, values[name]) for name, measure in measures.items()}

    def differences(
        self, scores_a: np.ndarray, scores_b: np.ndarray, measures: Mapping[Hashable, "Measure"]
    ) -> dict[Hashable, Difference]:
        """Return each measure of system A minus that of system B, with interval and p-value.

        Both systems see the same draws, so a draw that is easy or hard for both cancels. Arguments and errors are those
        of ``intervals``; ``scores_a`` and ``scores_b`` are (trials,) in the same order.
        """
        values_a, values_b = (self.replicates(scores, measures) for scores in (scores_a, scores_b))
        found = {}
        for name in measures:
            spread = self._spread(values_a[name] - values_b[name])
            counts = spread.replicates.size, spread.num_degenerate, self.num_speakers
            found[name] = Difference(spread.estimate, *spread.ends(), *counts, p_value=spread.p_value_of(0.0))
        return found

    def replicates(self, scores: np.ndarray, measures: Mapping[Hashable, "Measure"]) -> dict[Hashable, np.ndarray]:
        """Return each measure's values, (1 + replicates + left out,): see ``draw_speakers``.

        NaN where a draw lacks one kind of trials. Arguments and errors are those of ``intervals``.
        """
        scores, _ = checked_trials(scores, self.is_target)
        values = {name: np.full(self._num_target.size, np.nan) for name in measures}
        from_points = {}
        for name, measure in measures.items():
            if isinstance(measure, MeanCost):
                values[name][self._usable] = self._mean_cost(measure, scores)[self._usable]
            else:
                from_points[name] = measure
        if from_points:
            trials = _SortedTrials(scores, self)
            for start in range(0, self._usable.size, REPLICATES_AT_A_TIME):
                draws = self._usable[start : start + REPLICATES_AT_A_TIME]
                points = trials.resample(self._multiplicity[:, draws])
                for name, measure in from_points.items():
                    values[name][draws] = measure.values(points)
        return values

    def _mean_cost(self, measure: "MeanCost", scores: np.ndarray) -> np.ndarray:
        """Return a weighted mean cost under each draw, (draws,): exact for whole costs, since weights are whole."""
        costs = measure.trial_costs(scores, self.is_target)
        target_weight, nontarget_weight = measure.weights
        means = np.zeros(self._num_target.size)
        with np.errstate(invalid="ignore"):  # 0 / 0 in draws without one kind of trials
            if target_weight:
                means += target_weight * (self._target_total(costs) / self._num_target)
            if nontarget_weight:
                means += nontarget_weight * (self._nontarget_total(costs) / self._num_nontarget)
        return means

    def _target_total(self, costs: np.ndarray) -> np.ndarray:
        """Return the weighted sum of the target trials' costs under each draw, (draws,)."""
        speaker = self.enrol_speaker[self.is_target]
        return np.bincount(speaker, costs[self.is_target], self.num_speakers) @ self._multiplicity[:-1]

    def _nontarget_total(self, costs: np.ndarray) -> np.ndarray:
        """Return the weighted sum of the non-target trials' costs under each draw, (draws,)."""
        first, cost_of_pairs = self._cost_of_pairs(costs)
        totals = np.empty(self._multiplicity.shape[1])
        for start in range(0, totals.size, REPLICATES_AT_A_TIME):
            draws = self._multiplicity[:-1, start : start + REPLICATES_AT_A_TIME]
            totals[start : start + REPLICATES_AT_A_TIME] = np.einsum("sd,sd->d", draws[first], cost_of_pairs @ draws)
        return totals

    def _cost_of_pairs(self, costs: np.ndarray) -> tuple[np.ndarray, csr_array]:
        """Sum the non-target trials' costs over each pair of speakers that has any.

        Returns the first speakers (firsts,), and a sparse matrix (firsts, speakers) of the sums.
        """
        chosen = ~self.is_target & (costs != 0.0)
        first, second = np.sort([self.enrol_speaker[chosen], self.test_speaker[chosen]], axis=0)
        firsts, row = np.unique(first, return_inverse=True)
        return firsts, coo_array((costs[chosen], (row, second)), shape=(firsts.size, self.num_speakers)).tocsr()

    def _interval(self, measure: "Measure", values: np.ndarray) -> Interval:
        spread = self._spread(values)
        lower, upper = spread.ends()
        if spread.estimate == 0.0:
            upper = max(upper, measure.highest_without_errors(*self._rules_of_three()))
        counts = spread.replicates.size, spread.num_degenerate, self.num_speakers
        return Interval(spread.estimate, lower, upper, *counts)

    def _spread(self, values: np.ndarray) -> Spread:
        estimate, replicates, left_out = np.split(values, [1, 1 + self._num_replicates])
        return Spread.of(float(estimate[0]), replicates, left_out, self.num_speakers)

    def _rules_of_three(self) -> tuple[float, float]:
        """Return the FRR and FAR that zero errors still allow, from the numbers of speakers and of pairs."""
        num_speakers = np.unique(self.enrol_speaker[self.is_target]).size
        num_pairs = self._cost_of_pairs(np.ones(self.is_target.size))[1].nnz
        return min(1.0, 3.0 / num_speakers), min(1.0, 3.0 / num_pairs)


def draw_speakers(num_speakers: int, num_replicates: int, seed: int) -> np.ndarray:
    """Return multiplicities (1 + replicates + left out, speakers): each speaker once, the draws, the jackknife's."""
    if num_replicates < 1:
        raise ValueError(f"num_replicates is {num_replicates}: expected 1 or more (1000 is usual)")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), num_replicates)
    group = rng.permutation(num_speakers) % JACKKNIFE_GROUPS
    left_out = (group != np.arange(min(num_speakers, JACKKNIFE_GROUPS))[:, None]).astype(np.int64)
    return np.concatenate([np.ones((1, num_speakers), np.int64), draws, left_out])


def _number_speakers(
    is_target: np.ndarray, enrol_speaker: np.ndarray, test_speaker: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the speakers of both sides in the order of their names, and check them against the labels."""
    sides = [np.asarray(enrol_speaker), np.asarray(test_speaker)]
    for side, speakers in zip(("enrolment", "test"), sides, strict=True):
        if speakers.shape != is_target.shape:
            raise ValueError(f"{speakers.shape} {side} speakers for {is_target.shape} trials: expected one per trial")
    codes, names = pd.factorize(np.concatenate(sides), sort=True)
    if (codes < 0).any():
        trial = int(np.argmax(codes < 0)) % is_target.size
        raise InputError(f"trial {trial} (counted from 0) has no speaker on one side: give the speaker of both sides")
    enrol, test = np.split(codes, 2)
    wrong = (enrol == test) != is_target
    if wrong.any():
        trial = int(np.argmax(wrong))
        kind = "target" if is_target[trial] else "non-target"
        raise InputError(
            f"trial {trial} (counted from 0) is labelled {kind}, but its speakers are {names[enrol[trial]]} and "
            f"{names[test[trial]]} ({np.count_nonzero(wrong)} such trials): correct the labels or the speakers"
        )
    if names.size < 2:
        raise InputError(f"{names.size} speaker: an interval over speakers needs two or more")
    return enrol, test, names.size


class _SortedTrials:
    """Trials sorted by score once, cut into blocks that split no tie, for the error rates of many resamples.

    One pass sums the weights of every block for hundreds of resamples as matrix products; the operating points inside
    a block are laid out only where a measure needs them. Weights are whole numbers below 2^24 per block, so single
    precision is exact: a resample's figures equal those of the trials repeated as often as drawn.
    """

    def __init__(self, scores: np.ndarray, bootstrap: SpeakerBootstrap) -> None:
        order = np.argsort(scores)
        self.scores = scores[order]
        self.is_target = bootstrap.is_target[order]
        self.ends_tie = np.append(self.scores[1:] != self.scores[:-1], True)
        self._first = bootstrap.enrol_speaker[order].astype(np.int32)
        second = np.where(self.is_target, bootstrap.num_speakers, bootstrap.test_speaker[order])
        self._second = second.astype(np.int32)
        self.cuts = self._cuts()

    def _cuts(self) -> np.ndarray:
        """Return the first trial of each block, and the number of trials."""
        starts_tie = np.append(0, np.flatnonzero(self.ends_tie) + 1)
        if starts_tie.size <= NUM_BLOCKS_WANTED:  # few distinct scores: every operating point is a cut
            return starts_tie
        num_trials = self.scores.size
        length = np.clip(num_trials // NUM_BLOCKS_WANTED, MIN_TRIALS_PER_BLOCK, TRIALS_PER_BLOCK)
        wanted = np.arange(0, num_trials, max(int(length), num_trials // MAX_BLOCKS))
        return np.unique(np.append(starts_tie[np.searchsorted(starts_tie, wanted)], num_trials))

    def weights(self, multiplicity: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return the weights of the trials from ``start`` to ``stop``: (trials,) or (trials, resamples)."""
        weights = multiplicity.take(self._first[start:stop], axis=0)
        weights *= multiplicity.take(self._second[start:stop], axis=0)
        return weights

    def resample(self, multiplicity: np.ndarray) -> "_Resamples":
        """Sum the weights of all blocks; ``multiplicity`` (speakers + 1, resamples), each with both kinds of trials."""
        multiplicity = np.ascontiguousarray(multiplicity, np.float32)
        below = np.zeros((self.cuts.size, 2, multiplicity.shape[1]))  # target and non-target weight below each cut
        for block, (start, stop) in enumerate(zip(self.cuts[:-1], self.cuts[1:], strict=True)):
            for first in range(start, stop, TRIALS_PER_BLOCK):
                last = min(first + TRIALS_PER_BLOCK, stop)
                is_target = self.is_target[first:last]
                kinds = np.stack([is_target, ~is_target]).astype(np.float32)
                below[block + 1] += kinds @ self.weights(multiplicity, first, last)
        np.cumsum(below, axis=0, out=below)
        return _Resamples(self, multiplicity, below[:, 0], below[:, 1])


class _Resamples:
    """Operating points of some resamples: ``frr`` and ``far`` (cuts, resamples) when all from a cut on is accepted."""

    def __init__(
        self, trials: _SortedTrials, multiplicity: np.ndarray, target_below: np.ndarray, nontarget_below: np.ndarray
    ) -> None:
        self._trials, self._multiplicity = trials, np.ascontiguousarray(multiplicity.T)  # (resamples, speakers + 1)
        self._target_below, self._nontarget_below = target_below, nontarget_below
        self.are_all_points = trials.cuts.size == np.count_nonzero(trials.ends_tie) + 1
        self.frr = target_below / target_below[-1]
        self.far = (nontarget_below[-1] - nontarget_below) / nontarget_below[-1]

    def rates_between(self, resample: int, first_cut: int, last_cut: int) -> ErrorRates:
        """Return every operating point of one resample from one cut to another, both included."""
        trials = self._trials
        start, stop = trials.cuts[[first_cut, last_cut]]
        weights = trials.weights(self._multiplicity[resample], start, stop)
        ends = trials.ends_tie[start:stop]
        below = np.cumsum(weights, dtype=np.float64)[ends]
        weights *= trials.is_target[start:stop]
        target_below = np.cumsum(weights, dtype=np.float64)[ends]
        num_target, num_nontarget = self._target_below[-1, resample], self._nontarget_below[-1, resample]
        target_below, nontarget_below = (
            counted[first_cut, resample] + np.append(0.0, inside)
            for counted, inside in ((self._target_below, target_below), (self._nontarget_below, below - target_below))
        )
        above = trials.scores[stop] if stop < trials.scores.size else np.inf
        return ErrorRates(
            thresholds=np.append(trials.scores[start:stop][ends], above),
            far=(num_nontarget - nontarget_below) / num_nontarget,
            frr=target_below / num_target,
            num_target=int(num_target),
            num_nontarget=int(num_nontarget),
        )


class MeanCost:
    """A figure that is a weighted sum of the mean cost of target trials and of non-target trials."""

    weights: tuple[float, float]  # of the target and of the non-target mean

    def trial_costs(self, scores: np.ndarray, is_target: np.ndarray) -> np.ndarray:
        """Return each trial's cost, (trials,) float64."""
        raise NotImplementedError

    def highest_without_errors(self, frr: float, far: float) -> float:
        """Return the figure's upper bound when the rates are at most ``frr`` and ``far``."""
        return self.weights[0] * frr + self.weights[1] * far


@dataclass(frozen=True)
class ErrorsAt(MeanCost):
    """A weighted sum of FRR and FAR at one threshold: use ``far_at``, ``frr_at`` or ``act_dcf_at``."""

    threshold: float
    weights: tuple[float, float]

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):
            raise ValueError("the threshold is NaN: expected a score, or infinity for reject all")

    def trial_costs(self, scores: np.ndarray, is_target: np.ndarray) -> np.ndarray:
        return ((scores >= np.float64(self.threshold)) != is_target).astype(np.float64)


def far_at(threshold: float) -> ErrorsAt:
    """FAR at a threshold: fraction of non-target trials that score at least ``threshold``."""
    return ErrorsAt(threshold, (0.0, 1.0))


def frr_at(threshold: float) -> ErrorsAt:
    """FRR at a threshold: fraction of target trials that score less than ``threshold``."""
    return ErrorsAt(threshold, (1.0, 0.0))


def act_dcf_at(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> ErrorsAt:
    """Normalised detection cost at the Bayes threshold of these costs; the scores must be log-likelihood ratios.

    Normalised like minDCF, which it equals for perfectly calibrated scores; it can exceed 1.

    Source: NIST SRE 2019-2021 evaluation plans, "Performance Measurement" (actual detection cost).
    """
    return ErrorsAt(bayes_threshold(p_target, c_miss, c_fa), normalised_weights(p_target, c_miss, c_fa))


class Cllr(MeanCost):
    """C_llr in bits, as ``llr.cllr``; the scores must be log-likelihood ratios."""

    weights = (0.5, 0.5)

    def trial_costs(self, scores: np.ndarray, is_target: np.ndarray) -> np.ndarray:
        return cllr_of_each(scores, is_target)


class _FromOperatingPoints:
    """A figure read off the operating points between two cuts, by the same code as the estimate (``ErrorRates``)."""

    def values(self, points: _Resamples) -> np.ndarray:
        """Return the figure of each resample, (resamples,)."""
        first_cuts, last_cuts = self._cuts(points)
        if points.are_all_points:
            return self._read_all(points, last_cuts, np.arange(last_cuts.size))
        spans = enumerate(zip(first_cuts, last_cuts, strict=True))
        return np.array([self._read(points.rates_between(number, first, last)) for number, (first, last) in spans])


@dataclass(frozen=True)
class Eer(_FromOperatingPoints):
    """Equal error rate, as ``ErrorRates.equal_error_rate``."""

    def _cuts(self, points: _Resamples) -> tuple[np.ndarray, np.ndarray]:
        right = np.argmax(points.frr - points.far >= 0.0, axis=0)  # the first cut where FRR has caught up
        return right - 1, right

    def _read(self, rates: ErrorRates) -> float:
        return rates.equal_error_rate()[0]

    def _read_all(self, points: _Resamples, right: np.ndarray, resamples: np.ndarray) -> np.ndarray:
        before, after = points.frr[right - 1, resamples], points.frr[right, resamples]
        gap_before, gap_after = before - points.far[right - 1, resamples], after - points.far[right, resamples]
        return before + gap_before / (gap_before - gap_after) * (after - before)

    def highest_without_errors(self, frr: float, far: float) -> float:
        return max(frr, far)


@dataclass(frozen=True)
class FrrAtFar(_FromOperatingPoints):
    """Lowest FRR among thresholds with a FAR of at most ``max_far``, as ``ErrorRates.frr_at_far``."""

    max_far: float

    def __post_init__(self) -> None:
        check_far(self.max_far)

    def _cuts(self, points: _Resamples) -> tuple[np.ndarray, np.ndarray]:
        right = np.argmax(points.far <= self.max_far, axis=0)
        return np.maximum(right - 1, 0), right

    def _read(self, rates: ErrorRates) -> float:
        return rates.frr_at_far(self.max_far)[0]

    def _read_all(self, points: _Resamples, right: np.ndarray, resamples: np.ndarray) -> np.ndarray:
        return points.frr[right, resamples]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return frr


@dataclass(frozen=True)
class MinDcf(_FromOperatingPoints):
    """Smallest normalised detection cost over all thresholds, as ``ErrorRates.min_dcf``."""

    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    @property
    def _weights(self) -> tuple[float, float]:
        return normalised_weights(self.p_target, self.c_miss, self.c_fa)

    def __post_init__(self) -> None:
        _ = self._weights  # raises for constants out of range

    def _cuts(self, points: _Resamples) -> tuple[np.ndarray, np.ndarray]:
        miss_weight, fa_weight = self._weights
        misses, false_accepts = miss_weight * points.frr, fa_weight * points.far
        cost = misses + false_accepts
        best = np.argmin(cost, axis=0)
        at_least = misses[:-1] + false_accepts[1:]  # lower bound of the costs inside each block
        may_be_lower = at_least < cost[best, np.arange(best.size)]  # (blocks, resamples)
        any_lower = may_be_lower.any(axis=0)
        first = np.where(any_lower, np.argmax(may_be_lower, axis=0), best)
        last = np.where(any_lower, len(may_be_lower) - np.argmax(may_be_lower[::-1], axis=0), best)
        return np.minimum(first, best), np.maximum(last, best)

    def _read(self, rates: ErrorRates) -> float:
        return rates.min_dcf(self.p_target, self.c_miss, self.c_fa)[0]

    def _read_all(self, points: _Resamples, right: np.ndarray, resamples: np.ndarray) -> np.ndarray:
        return (self._weights[0] * points.frr + self._weights[1] * points.far).min(axis=0)

    def highest_without_errors(self, frr: float, far: float) -> float:
        miss_weight, fa_weight = self._weights
        return min(1.0, miss_weight * frr + fa_weight * far)


Measure = MeanCost | Eer | FrrAtFar | MinDcf


def band_fars(num_nontarget: int, num_points: int = 25) -> list[float]:
    """Return FARs for a band of FRR intervals: evenly spaced on a DET axis, down to what the trials support."""
    lowest = min(ERRORS_FOR_ANY_CLAIM / num_nontarget, 0.4)
    return ndtr(np.linspace(ndtri(lowest), ndtri(0.5), num_points)).tolist()
