"""95 % intervals of error rates, and of the difference of two systems, by bootstrap over the speakers of both sides.

Trials share speakers, so they are no independent draws, and resampling trials gives intervals that are far too narrow.
Here a replicate draws as many speakers as there are, with replacement, and every trial is counted as often as its
speakers make it occur, speaker by speaker:

- a non-target trial of speakers a and b: multiplicity of a times multiplicity of b, since each copy of a meets each
  copy of b. This is the product reweighting of crossed data: exact for what speakers contribute, and up to the square
  root of 3 too wide (never too narrow) for what is particular to one pair of speakers.
- a target trial of speaker a: multiplicity of a, once. Target trials are clustered by one speaker, and a copy brings
  along its own target trials; the product of a with itself would also compare a copy with another copy. Squared
  multiplicities, as in DCA-PLDA's script, spread the replicates of the FRR 1.66 times too wide (variance 11/4).

The ends are those of ``voice_biometrics.metrics.bootstrap``: corrected for bias, for skewness, and for few speakers.
Simulated with
known speaker effects, 25 to 60 speakers, they hold the truth in 0.93 to 0.96 of lists for FAR and FRR at a threshold,
0.90 to 0.94 for the EER, 0.90 to 0.94 for minDCF (whose estimate is itself too low on few speakers); with 10 speakers
in about 0.90, minDCF 0.80. A rate that was 0 gets an upper end by the rule of 3, with speakers (FRR) and pairs of
speakers (FAR) as the independent draws: a bootstrap cannot see errors that did not happen.

Source: Owen 2007, "The pigeonhole bootstrap", and Owen and Eckles 2012, "Bootstrapping data arrays of arbitrary order"
(products); Poh, Martin and Bengio 2007, "Performance generalization in biometric authentication using joint
user-specific and sample bootstraps" (users first).

Bootstrap replicates of a figure to a 95 % interval and p-values: BCa, with the width of a t distribution.

BCa takes the percentiles of the replicates where a bias (the replicates' median is not the estimate) and a skewness
(the spread grows with the figure, as that of a small rate does) put them. Where few units were resampled they lie a
little further out: the spread of n draws instead of n - 1, and Student's t instead of the normal distribution.

Source: Efron 1987, "Better bootstrap confidence intervals" (BCa, and the acceleration from a jackknife); Hesterberg
2015, "What teachers should know about the bootstrap" (percentiles further out for few units).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import norm, t

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import ERRORS_FOR_ANY_CLAIM, checked_trials
from voice_biometrics.metrics.llr import trial_costs
from voice_biometrics.metrics.resampling import Cllr, Measure, SortedTrials


@dataclass(frozen=True, eq=False)
class Spread:
    """What bootstrap replicates say of one figure.

    estimate : the figure of all trials.
    replicates : (replicates,) float, sorted, those that had both kinds of trials.
    num_degenerate : how many had not.
    num_units : how many units (speakers) each replicate drew, 2 or more.
    bias : BCa's z0, where the estimate lies among the replicates, in standard deviations.
    acceleration : BCa's a, a sixth of the skewness of what the units contribute.
    """

    estimate: float
    replicates: np.ndarray
    num_degenerate: int
    num_units: int
    bias: float
    acceleration: float

    @classmethod
    def of(cls, estimate: float, replicates: np.ndarray, left_out: np.ndarray, num_units: int) -> "Spread":
        """Sum up the values of a figure, NaN where a kind of trial was missing.

        Arguments
        ---------
        estimate : the figure of all trials.
        replicates : (replicates,) float, the figure of each draw of units.
        left_out : (parts,) float, the figure when each part of the units in turn is left out (jackknife).
        num_units : how many units there are.

        Raises
        ------
        InputError : no replicate had both kinds of trials.
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
        return cls(
            estimate=estimate,
            replicates=usable,
            num_degenerate=replicates.size - usable.size,
            num_units=num_units,
            bias=_normal_quantile(usable, estimate),
            acceleration=float(np.sum(influence**3) / (6.0 * power)) if power > 0.0 else 0.0,
        )

    def ends(self) -> tuple[float, float]:
        """Return the two ends of the 95 % interval."""
        far_out = self.bias + self._expansion() * t.ppf([0.025, 0.975], df=self.num_units - 1)
        tails = norm.cdf(self.bias + _bend(far_out, -self.acceleration))
        lower, upper = np.quantile(self.replicates, tails)
        return float(lower), float(upper)

    def p_value_of(self, value: float) -> float:
        """Return the two-sided p-value of ``value``: 1 less the confidence at which an interval would end there."""
        far_out = _bend(_normal_quantile(self.replicates, value) - self.bias, self.acceleration) - self.bias
        return float(2.0 * t.sf(np.abs(far_out) / self._expansion(), df=self.num_units - 1))

    def _expansion(self) -> float:
        """A bootstrap spreads as n, not n - 1, draws do: by how much that is too little."""
        return float(np.sqrt(self.num_units / (self.num_units - 1)))


def _bend(far_out: np.ndarray | float, acceleration: float) -> np.ndarray:
    """Return ``far_out / (1 + acceleration * far_out)``; infinite, of the same sign, from the pole on."""
    slope = 1.0 + acceleration * np.asarray(far_out)
    return np.where(slope > 0.0, far_out / np.where(slope > 0.0, slope, 1.0), np.copysign(np.inf, far_out))


def _normal_quantile(ordered: np.ndarray, value: float) -> float:
    """Return where ``value`` lies among sorted replicates, in standard deviations; equal ones count half."""
    below, up_to = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
    return float(norm.ppf((below + up_to + 1.0) / (2.0 * ordered.size + 2.0)))


JACKKNIFE_GROUPS = 200  # as many parts of the speakers are left out in turn
REPLICATES_AT_A_TIME = 256  # bounds the memory: some counts per block and replicate


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    estimate : the figure of all trials; lower, upper : the ends of the interval.
    num_replicates : replicates behind it; num_degenerate : further ones that had drawn one kind of trial only.
    num_speakers : speakers that were resampled.
    """

    estimate: float
    lower: float
    upper: float
    num_replicates: int
    num_degenerate: int
    num_speakers: int


@dataclass(frozen=True)
class Difference(Interval):
    """A figure of system A less that of system B, with its 95 % interval.

    p_value : two-sided, of no difference; below 0.05 where the interval leaves out 0, unless that end
        is the outermost replicate (draw more then). With 25 speakers, simulated systems that were equally good came
        out below 0.05 in 0.04 to 0.09 of lists: read a value near it as open.
    """

    p_value: float


@dataclass(frozen=True, eq=False)
class SpeakerTrials:
    """Which trials there are, and of whom: what two systems under comparison share.

    is_target : (trials,) bool; enrol_speaker, test_speaker : (trials,) int codes from 0; num_speakers : codes in use.
    """

    is_target: np.ndarray
    enrol_speaker: np.ndarray
    test_speaker: np.ndarray
    num_speakers: int


def bootstrap_intervals(
    scores: np.ndarray,
    is_target: np.ndarray,
    enrol_speaker: np.ndarray,
    test_speaker: np.ndarray,
    measures: Mapping[str, Measure],
    *,
    num_replicates: int = 1000,
    seed: int,
) -> dict[str, Interval]:
    """Return each measure with its 95 % interval over speakers, under the names of ``measures``.

    Arguments
    ---------
    scores : (trials,) finite float, higher = more alike; log-likelihood ratios for actDCF and C_llr.
    is_target : (trials,) bool, or 0 and 1.
    enrol_speaker, test_speaker : (trials,) speaker of either side: text or numbers.
    measures : what to compute, from ``voice_biometrics.metrics.resampling``.
    num_replicates : how often speakers are drawn.
    seed : of the draws; the same seed and speakers give the same draws.

    Raises
    ------
    InputError : as ``metrics.error_rates``; labels that the speakers contradict (the first is named), fewer than two
        speakers, a missing speaker, or no replicate with both kinds of trials.
    """
    scores, is_target = checked_trials(scores, is_target)
    trials = speaker_trials(is_target, enrol_speaker, test_speaker)
    draws = draw_speakers(trials.num_speakers, num_replicates, seed)
    values = replicate(scores, trials, measures, draws)
    return {name: _interval(measures[name], values[name], num_replicates, trials) for name in measures}


def bootstrap_differences(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    is_target: np.ndarray,
    enrol_speaker: np.ndarray,
    test_speaker: np.ndarray,
    measures: Mapping[str, Measure],
    measures_b: Mapping[str, Measure] | None = None,
    *,
    num_replicates: int = 1000,
    seed: int,
) -> dict[str, Difference]:
    """Return each measure of system A less that of system B on the same trials, with interval and p-value.

    Both systems are resampled alike, so what makes a draw of speakers easy or hard for both cancels.

    Arguments
    ---------
    scores_a, scores_b : (trials,) finite float, the two systems' scores of the same trials in the same order.
    measures_b : measures of system B where they differ (each system has its own threshold); the same names.
    is_target, enrol_speaker, test_speaker, measures, num_replicates, seed : as ``bootstrap_intervals``.

    Raises
    ------
    InputError : as ``bootstrap_intervals``, for either system; ``measures_b`` has other names.
    """
    scores_a, is_target = checked_trials(scores_a, is_target)
    scores_b, _ = checked_trials(scores_b, is_target)
    measures_b = measures if measures_b is None else measures_b
    if set(measures_b) != set(measures):
        raise InputError(f"system A has the measures {sorted(measures)}, B has {sorted(measures_b)}: give the same")
    trials = speaker_trials(is_target, enrol_speaker, test_speaker)
    draws = draw_speakers(trials.num_speakers, num_replicates, seed)
    values_a = replicate(scores_a, trials, measures, draws)
    values_b = replicate(scores_b, trials, measures_b, draws)
    return {name: _difference(values_a[name] - values_b[name], num_replicates, trials) for name in measures}


def speaker_trials(is_target: np.ndarray, enrol_speaker: np.ndarray, test_speaker: np.ndarray) -> SpeakerTrials:
    """Number the speakers in order of their names, and check them against the labels.

    ``is_target`` (trials,) bool; ``enrol_speaker``, ``test_speaker`` (trials,) text or numbers. Raises InputError as
    ``bootstrap_intervals``.
    """
    sides = [np.asarray(enrol_speaker), np.asarray(test_speaker)]
    for side, speakers in zip(("enrolment", "test"), sides, strict=True):
        if speakers.shape != is_target.shape:
            raise InputError(
                f"{speakers.shape} {side} speakers for {is_target.shape} trials: give one speaker per trial"
            )
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
    return SpeakerTrials(is_target, enrol, test, names.size)


def draw_speakers(num_speakers: int, num_replicates: int, seed: int) -> np.ndarray:
    """Return multiplicities (1 + replicates + left out, speakers): each speaker once, the draws, the jackknife's."""
    if num_replicates < 1:
        raise InputError(f"num_replicates is {num_replicates}: expected 1 or more (1000 is usual)")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), num_replicates)
    group = rng.permutation(num_speakers) % JACKKNIFE_GROUPS  # up to that many speakers, each is a group
    left_out = (group != np.arange(min(num_speakers, JACKKNIFE_GROUPS))[:, None]).astype(np.int64)
    return np.concatenate([np.ones((1, num_speakers), np.int64), draws, left_out])


def replicate(
    scores: np.ndarray, trials: SpeakerTrials, measures: Mapping[str, Measure], draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each measure's value under each row of draws, (draws,): NaN where a kind of trial is missing.

    ``scores`` (trials,) float, in the order of ``trials``; ``draws`` (draws, speakers) int, from ``draw_speakers``.
    """
    with_costs = any(isinstance(measure, Cllr) for measure in measures.values())
    ordered = SortedTrials(
        scores,
        trials.is_target,
        trials.enrol_speaker,
        trials.test_speaker,
        trials.num_speakers,
        thresholds=tuple(threshold for measure in measures.values() for threshold in measure.thresholds),
        costs=trial_costs(scores, trials.is_target) if with_costs else None,
    )
    values = {name: np.full(len(draws), np.nan) for name in measures}
    for start in range(0, len(draws), REPLICATES_AT_A_TIME):
        resampled, usable = ordered.resample(draws[start : start + REPLICATES_AT_A_TIME])
        rows = start + np.flatnonzero(usable)
        for name, measure in measures.items():
            values[name][rows] = measure.values(resampled)
    return values


def _interval(measure: Measure, values: np.ndarray, num_replicates: int, trials: SpeakerTrials) -> Interval:
    """Summarise the values of one measure under the rows of ``draw_speakers``."""
    spread = _spread(values, num_replicates, trials)
    lower, upper = spread.ends()
    if spread.estimate == 0.0:
        upper = max(upper, measure.highest_without_errors(*_rules_of_three(trials)))
    return Interval(spread.estimate, lower, upper, spread.replicates.size, spread.num_degenerate, trials.num_speakers)


def _difference(values: np.ndarray, num_replicates: int, trials: SpeakerTrials) -> Difference:
    """Summarise the differences of one measure under the rows of ``draw_speakers``."""
    spread = _spread(values, num_replicates, trials)
    counts = spread.replicates.size, spread.num_degenerate, trials.num_speakers
    return Difference(spread.estimate, *spread.ends(), *counts, p_value=spread.p_value_of(0.0))


def _spread(values: np.ndarray, num_replicates: int, trials: SpeakerTrials) -> Spread:
    """Split the values of one figure, in the rows of ``draw_speakers``."""
    estimate, replicates, left_out = np.split(values, [1, 1 + num_replicates])
    return Spread.of(float(estimate[0]), replicates, left_out, trials.num_speakers)


def _rules_of_three(trials: SpeakerTrials) -> tuple[float, float]:
    """FRR and FAR that the rule of 3 allows when there was no error, from speakers and pairs of speakers."""
    first, second = np.sort([trials.enrol_speaker, trials.test_speaker], axis=0).astype(np.int64)
    pairs = pd.unique(first[~trials.is_target] * trials.num_speakers + second[~trials.is_target]).size
    return min(1.0, 3.0 / pd.unique(first[trials.is_target]).size), min(1.0, 3.0 / pairs)


def band_fars(num_nontarget: int, num_points: int = 25) -> list[float]:
    """Return FARs at which to ask for the FRR's interval: evenly spread on a DET axis, as low as the trials support."""
    lowest = min(ERRORS_FOR_ANY_CLAIM / num_nontarget, 0.4)
    return ndtr(np.linspace(ndtri(lowest), ndtri(0.5), num_points)).tolist()
