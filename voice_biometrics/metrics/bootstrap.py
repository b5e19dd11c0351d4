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
    checked_labels,
    checked_trials,
    error_rates,
    meeting_point,
    normalised_weights,
)
from voice_biometrics.metrics.llr import bayes_threshold, cllr_of_each

NUM_REPLICATES, SEED = 1000, 0  # the same for all lists, so that lists of the same speakers compare
JACKKNIFE_GROUPS = 200  # maximum number of groups of speakers that are left out in turn
BAND_POINTS = 15  # of a band of intervals along a curve
DRAWS_AT_A_TIME = 64  # bounds the memory: a product for each pair of speakers and draw
EER_RANGES = 32  # of scores, of which only those where a replicate's EER is are looked at more closely
SUMS_AT_A_TIME = 2**17  # 1 MB


@dataclass(frozen=True, eq=False)
class Spread:
    """Distribution of a figure over bootstrap replicates.

    estimate : the figure of all trials.
    replicates : (replicates,) float, sorted; those with both kinds of trials.
    num_degenerate : replicates without one kind of trials. num_units : units (speakers) in each draw, 2 or more.
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
        """Summarise a figure's ``replicates`` (replicates,), NaN where a kind of trials was missing.

        ``left_out`` (groups,) is the figure without each group of units in turn (jackknife). Raises InputError when no
        replicate has both kinds of trials.
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
    InputError : labels other than 0 and 1, or of one kind only; fewer than two speakers.
    ValueError : a missing speaker, or labels that the speakers contradict.

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
        sides = np.asarray(enrol_speaker), np.asarray(test_speaker)
        if not self.is_target.shape == sides[0].shape == sides[1].shape:
            raise ValueError(f"expected a speaker per trial and side: {self.is_target.shape} trials, {sides}")
        codes, names = pd.factorize(np.concatenate(sides), sort=True)
        self.enrol_speaker, self.test_speaker = np.split(codes, 2)
        if (codes < 0).any() or ((self.enrol_speaker == self.test_speaker) != self.is_target).any():
            raise ValueError("a trial has no speaker on one side, or a label that its speakers contradict")
        self.num_speakers = names.size
        if self.num_speakers < 2:
            raise InputError(f"{names.size} speaker: an interval over speakers needs two or more")
        self._pair, self._pair_speakers = self._number_pairs()
        self._num_replicates = num_replicates
        drawn = draw_speakers(self.num_speakers, num_replicates, seed).T  # (speakers, draws)
        self._multiplicity = drawn.astype(np.min_scalar_type(drawn.max() ** 2))  # small: memory sets the speed
        self._num_target, self._num_nontarget = self._totals(np.ones(self.is_target.size))[0]  # (draws,)
        self._usable = np.flatnonzero((self._num_target > 0) & (self._num_nontarget > 0))

    def _number_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each non-target trial's pair of speakers, (trials,), and the pairs, (2, pairs)."""
        low, high = np.sort([self.enrol_speaker, self.test_speaker], axis=0)[:, ~self.is_target]
        pair = np.zeros(self.is_target.size, int)
        pair[~self.is_target], pairs = pd.factorize(low * self.num_speakers + high, sort=True)
        return pair, np.stack(np.divmod(pairs, self.num_speakers))

    def intervals(self, scores: np.ndarray, measures: Mapping[Hashable, "Measure"]) -> dict[Hashable, Interval]:
        """Return each measure with its 95 % interval, under the names of ``measures``.

        ``scores`` : (trials,) finite float, higher = more alike; log-likelihood ratios for ``act_dcf_at`` and ``Cllr``.
        Raises InputError as ``error_rates``, or where no replicate has both kinds of trials.
        """
        values = self.replicates(scores, measures)
        return {name: self._interval(self._spread(values[name]), measure) for name, measure in measures.items()}

    def differences(
        self, scores_a: np.ndarray, scores_b: np.ndarray, measures: Mapping[Hashable, "Measure"]
    ) -> dict[Hashable, Difference]:
        """Return each measure of system A minus that of system B, with interval and p-value.

        Both systems see the same draws, so a draw that is easy or hard for both cancels. Arguments and errors are those
        of ``intervals``; ``scores_a`` and ``scores_b`` are (trials,) in the same order.
        """
        values_a, values_b = (self.replicates(scores, measures) for scores in (scores_a, scores_b))
        spreads = {name: self._spread(values_a[name] - values_b[name]) for name in measures}
        return {
            name: Difference(**vars(self._interval(spread)), p_value=spread.p_value_of(0.0))
            for name, spread in spreads.items()
        }

    def replicates(self, scores: np.ndarray, measures: Mapping[Hashable, "Measure"]) -> dict[Hashable, np.ndarray]:
        """Return each measure's values, (1 + replicates + left out,): see ``draw_speakers``.

        NaN where a draw lacks one kind of trials. Arguments and errors are those of ``intervals``.
        """
        scores, _ = checked_trials(scores, self.is_target)
        values = {name: np.full(self._num_target.size, np.nan) for name in measures}
        ordered = {name: measure for name, measure in measures.items() if not isinstance(measure, MeanCost)}
        for name in measures.keys() - ordered.keys():
            values[name][self._usable] = self._mean_cost(measures[name], scores)[self._usable]
        trials = _SortedTrials(scores, self) if ordered else None
        from_points = {name: measure for name, measure in ordered.items() if not isinstance(measure, Eer)}
        for name in ordered.keys() - from_points.keys():
            values[name][self._usable] = self._equal_error_rates(trials, scores)
        for start in range(0, self._usable.size if from_points else 0, DRAWS_AT_A_TIME):
            draws = self._usable[start : start + DRAWS_AT_A_TIME]
            for draw, multiplicity in zip(draws, np.ascontiguousarray(self._multiplicity[:, draws].T), strict=True):
                rates = trials.resample(multiplicity)
                for name, measure in from_points.items():
                    values[name][draw] = measure.read(rates)
        return values

    def _mean_cost(self, measure: "MeanCost", scores: np.ndarray) -> np.ndarray:
        """Return a weighted mean cost under each draw, (draws,): exact for whole costs, since weights are whole."""
        target_total, nontarget_total = self._totals(measure.trial_costs(scores, self.is_target))[0]
        with np.errstate(invalid="ignore"):  # 0 / 0 in draws without one kind of trials
            means = target_total / self._num_target, nontarget_total / self._num_nontarget
            return sum(weight * mean for weight, mean in zip(measure.weights, means, strict=True) if weight)

    def _equal_error_rates(self, trials: "_SortedTrials", scores: np.ndarray) -> np.ndarray:
        """Return the EER under each usable draw, (usable draws,).

        FRR only grows with the threshold and FAR only falls, so their values between a few ranges of scores tell in
        which range a draw's EER is: the trials of the other ranges need no order.
        """
        points = np.unique(np.linspace(0, trials.thresholds.size - 1, 1 + EER_RANGES).astype(int))
        range_of = np.searchsorted(trials.thresholds[points[1:-1]], scores, "right")
        totals = self._totals(np.ones(scores.size), range_of, points.size - 1)[..., self._usable]
        below = np.cumsum([np.zeros_like(totals[0]), *totals], axis=0)  # (points, 2, usable draws)
        frr, far = below[:, 0] / below[-1, 0], (below[-1, 1] - below[:, 1]) / below[-1, 1]
        first = np.argmax(frr >= far, axis=0)
        start, stop = first.min() - 1, first.max()
        between = points[start], points[stop]
        return trials.equal_error_rates(between, below[start], below[-1], self._multiplicity[:, self._usable])

    def _totals(self, costs: np.ndarray, part: np.ndarray | None = None, num_parts: int = 1) -> np.ndarray:
        """Return the weighted sums of the trials' costs under each draw, (parts, 2, draws): targets and non-targets.

        ``part`` (trials,) int: the part of each trial, if the list has several.
        """
        part = np.zeros(costs.size, int) if part is None else part

        def sums(kind: np.ndarray, unit: np.ndarray, num_units: int) -> csr_array:
            chosen = kind & (costs != 0.0)
            return coo_array((costs[chosen], (part[chosen], unit[chosen])), shape=(num_parts, num_units)).tocsr()

        targets = sums(self.is_target, self.enrol_speaker, self.num_speakers)
        nontargets = sums(~self.is_target, self._pair, self._pair_speakers.shape[1])
        costly = np.unique(nontargets.indices)
        nontargets, (first, second) = nontargets[:, costly], self._pair_speakers[:, costly]
        totals = np.empty((num_parts, 2, self._multiplicity.shape[1]))
        for start in range(0, totals.shape[2], DRAWS_AT_A_TIME):
            draws = np.ascontiguousarray(self._multiplicity[:, start : start + DRAWS_AT_A_TIME])
            some = totals[..., start : start + DRAWS_AT_A_TIME]
            some[:, 0] = targets @ draws
            some[:, 1] = nontargets @ (draws[first] * draws[second])
        return totals

    def _interval(self, spread: Spread, measure: "Measure | None" = None) -> Interval:
        lower, upper = spread.ends()
        if measure and spread.estimate == 0.0:
            upper = max(upper, measure.highest_without_errors(*self._rules_of_three()))
        counts = spread.replicates.size, spread.num_degenerate, self.num_speakers
        return Interval(spread.estimate, lower, upper, *counts)

    def _spread(self, values: np.ndarray) -> Spread:
        estimate, replicates, left_out = np.split(values, [1, 1 + self._num_replicates])
        return Spread.of(float(estimate[0]), replicates, left_out, self.num_speakers)

    def _rules_of_three(self) -> tuple[float, float]:
        """Return the FRR and FAR that zero errors still allow, from the numbers of speakers and of pairs."""
        num_speakers = np.unique(self.enrol_speaker[self.is_target]).size
        return min(1.0, 3.0 / num_speakers), min(1.0, 3.0 / self._pair_speakers.shape[1])


def draw_speakers(num_speakers: int, num_replicates: int, seed: int) -> np.ndarray:
    """Return multiplicities (1 + replicates + left out, speakers): each speaker once, the draws, the jackknife's."""
    if num_replicates < 1:
        raise ValueError(f"num_replicates is {num_replicates}: expected 1 or more (1000 is usual)")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), num_replicates)
    group = rng.permutation(num_speakers) % JACKKNIFE_GROUPS
    left_out = (group != np.arange(min(num_speakers, JACKKNIFE_GROUPS))[:, None]).astype(np.int64)
    return np.concatenate([np.ones((1, num_speakers), np.int64), draws, left_out])


class _SortedTrials:
    """Trials of each kind in the order of their scores, for the operating points of many resamples.

    Of several points with equal FRR the first and the last do: they have the lowest cost, and the EER is between them.
    Weights are whole numbers, so the figures of a resample equal those of the trials repeated as often as drawn.
    """

    def __init__(self, scores: np.ndarray, bootstrap: SpeakerBootstrap) -> None:
        rates = error_rates(scores, bootstrap.is_target)
        rejects_target = np.diff(rates.frr) > 0  # between points without a target no figure changes but the FAR
        needed = np.append(True, rejects_target) | np.append(rejects_target, True)
        self.thresholds = rates.thresholds[needed]
        target, self._targets_below = self._sorted(scores, bootstrap.is_target)
        nontarget, self._nontargets_below = self._sorted(scores, ~bootstrap.is_target)
        self._speaker = bootstrap.enrol_speaker[target]
        self._pair = bootstrap.enrol_speaker[nontarget], bootstrap.test_speaker[nontarget]

    def _sorted(self, scores: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the chosen trials in the order of their scores, and how many are below each threshold."""
        chosen = np.flatnonzero(chosen)
        chosen = chosen[np.argsort(scores[chosen])]
        return chosen, np.searchsorted(scores[chosen], self.thresholds)

    def resample(self, multiplicity: np.ndarray) -> ErrorRates:
        """Return the operating points of one draw: ``multiplicity`` (speakers,), with both kinds of trials."""
        first, second = self._pair
        target = np.append(0.0, np.cumsum(multiplicity[self._speaker]))
        nontarget = np.append(0.0, np.cumsum(multiplicity[first] * multiplicity[second]))
        return ErrorRates(
            self.thresholds,
            far=(nontarget[-1] - nontarget[self._nontargets_below]) / nontarget[-1],
            frr=target[self._targets_below] / target[-1],
            num_target=int(target[-1]),
            num_nontarget=int(nontarget[-1]),
        )

    def equal_error_rates(
        self, points: tuple[int, int], below: np.ndarray, total: np.ndarray, multiplicity: np.ndarray
    ) -> np.ndarray:
        """Return the EER of many draws (draws,), all of which are between two thresholds, numbered ``points``.

        below, total : (2, draws) float, targets and non-targets below the first threshold, and in all.
        multiplicity : (speakers, draws).
        """
        first, last = points
        targets, nontargets = (numbers[first : last + 1] for numbers in (self._targets_below, self._nontargets_below))
        speaker = self._speaker[targets[0] : targets[-1]]
        pair = [side[nontargets[0] : nontargets[-1]] for side in self._pair]
        eer = np.empty(total.shape[1])
        at_a_time = max(1, SUMS_AT_A_TIME // (1 + speaker.size + pair[0].size))
        for start in range(0, eer.size, at_a_time):
            some = slice(start, start + at_a_time)
            times = np.ascontiguousarray(multiplicity[:, some])
            target = _running_sums(below[0, some], times[speaker])[targets - targets[0]]  # (points, draws)
            nontarget = _running_sums(below[1, some], times[pair[0]] * times[pair[1]])[nontargets - nontargets[0]]
            frr, far = target / total[0, some], (total[1, some] - nontarget) / total[1, some]
            eer[some], _ = meeting_point(far, frr)
        return eer


def _running_sums(start: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Return the sums of 0 to all rows of ``added`` (rows, draws), from ``start`` (draws,) on: (1 + rows, draws)."""
    return np.cumsum(np.concatenate([start[None], added]), axis=0)


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


@dataclass(frozen=True)
class Eer:
    """Equal error rate, as ``ErrorRates.equal_error_rate``."""

    def read(self, rates: ErrorRates) -> float:
        return rates.equal_error_rate()[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return max(frr, far)


@dataclass(frozen=True)
class FrrAtFar:
    """Lowest FRR among thresholds with a FAR of at most ``max_far``, as ``ErrorRates.frr_at_far``."""

    max_far: float

    def read(self, rates: ErrorRates) -> float:
        return rates.frr_at_far(self.max_far)[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        return frr


@dataclass(frozen=True)
class MinDcf:
    """Smallest normalised detection cost over all thresholds, as ``ErrorRates.min_dcf``."""

    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    def read(self, rates: ErrorRates) -> float:
        return rates.min_dcf(self.p_target, self.c_miss, self.c_fa)[0]

    def highest_without_errors(self, frr: float, far: float) -> float:
        miss_weight, fa_weight = normalised_weights(self.p_target, self.c_miss, self.c_fa)
        return min(1.0, miss_weight * frr + fa_weight * far)


Measure = MeanCost | Eer | FrrAtFar | MinDcf


def band_fars(num_nontarget: int) -> list[float]:
    """Return FARs for a band of FRR intervals: evenly spaced on a DET axis, down to what the trials support."""
    lowest = min(ERRORS_FOR_ANY_CLAIM / num_nontarget, 0.4)
    return ndtr(np.linspace(ndtri(lowest), ndtri(0.5), BAND_POINTS)).tolist()
