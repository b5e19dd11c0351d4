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

The ends are those of ``voice_biometrics.bca``: corrected for bias, for skewness, and for few speakers. Simulated with
known speaker effects, 25 to 60 speakers, they hold the truth in 0.93 to 0.96 of lists for FAR and FRR at a threshold,
0.90 to 0.94 for the EER, 0.90 to 0.94 for minDCF (whose estimate is itself too low on few speakers); with 10 speakers
in about 0.90, minDCF 0.80. A rate that was 0 gets an upper end by the rule of 3, with speakers (FRR) and pairs of
speakers (FAR) as the independent draws: a bootstrap cannot see errors that did not happen.

Source: Owen 2007, "The pigeonhole bootstrap", and Owen and Eckles 2012, "Bootstrapping data arrays of arbitrary order"
(products); Poh, Martin and Bengio 2007, "Performance generalization in biometric authentication using joint
user-specific and sample bootstraps" (users first).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from voice_biometrics.bca import Spread
from voice_biometrics.errors import InputError
from voice_biometrics.llr_metrics import trial_costs
from voice_biometrics.measures import Cllr, Measure
from voice_biometrics.metrics import checked_trials
from voice_biometrics.resampling import SortedTrials

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
    measures : what to compute, from ``voice_biometrics.measures``.
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
