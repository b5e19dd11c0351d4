"""Scores to log-likelihood ratios (LLRs) by logistic regression, fitted on trials of held-out speakers.

``llr = slope * score + offset``, with a further slope for each quality measure, such as the durations. An LLR gives the
cheapest decision for any costs and priors: accept from ``ln(cost of a false accept x prior of a non-target / (cost of a
miss x prior of a target))``.

Source: Bruemmer and Doddington 2013, "Likelihood-ratio calibration using prior-weighted proper scoring rules";
Mandasari et al. 2013, "Quality measure functions for calibration of speaker recognition systems in various duration
conditions" (log durations).
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import checked_trials

PRIOR = 0.5  # of a target, in the fit
FIT_TOLERANCE = 1e-10  # of the gradient, for scores scaled to unit deviation
RIDGE_FOR_SEPARABLE = 1e-4
NUM_FOLDS, SEED = 5, 0  # the seed deals the speakers, in the same way for all systems
FEWEST_SPEAKERS = 8  # with fewer, two of 5 folds leave too few speakers to fit on


@dataclass(frozen=True)
class Calibration:
    """An affine map from scores to natural log-likelihood ratios.

    slope : LLR per unit of score, above 0. offset : LLR of score 0 (and quality 0).
    quality_slopes : name -> LLR per unit of that quality measure; empty if none is used.
    prior : weight of the targets in the fit, 0.5.
    ridge : penalty on the slopes, 0 for none.
    num_target, num_nontarget : trials of the fit.
    """

    slope: float
    offset: float
    prior: float
    num_target: int
    num_nontarget: int
    ridge: float = 0.0
    quality_slopes: dict[str, float] = field(default_factory=dict)

    def llrs(self, scores: np.ndarray, quality: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Return the LLR of each score, (trials,) float64.

        ``quality`` holds the measures that the calibration was fitted with, (trials,) each. Raises ValueError when one
        is missing or too many.
        """
        quality = quality or {}
        if set(quality) != set(self.quality_slopes):
            raise ValueError(
                f"the calibration was fitted with the quality measures {sorted(self.quality_slopes)}, "
                f"found {sorted(quality)}"
            )
        llrs = self.slope * np.asarray(scores, np.float64) + self.offset
        for name, column in quality.items():
            llrs += self.quality_slopes[name] * np.asarray(column, np.float64)
        return llrs

    def score_at(self, llr: float) -> float:
        """Return the score whose LLR is ``llr``; ValueError where the LLR depends on more than the score."""
        if self.quality_slopes:
            raise ValueError(f"the LLR also depends on {', '.join(self.quality_slopes)}: no score alone has an LLR")
        return (llr - self.offset) / self.slope


def log_durations(enrol_duration_s: np.ndarray, test_duration_s: np.ndarray) -> dict[str, np.ndarray]:
    """Return the quality measures ``log_shorter`` and ``log_longer``: logarithms of the two durations of each trial.

    ``enrol_duration_s`` and ``test_duration_s`` are (trials,) float in seconds; exchanging them changes nothing. Raises
    InputError, naming the first trial, when a duration is not a finite number above 0.
    """
    both = np.stack([np.asarray(enrol_duration_s, np.float64), np.asarray(test_duration_s, np.float64)])
    sound = (np.isfinite(both) & (both > 0.0)).all(axis=0)
    if not sound.all():
        trial = int(np.argmin(sound))
        raise InputError(
            f"trial {trial} (counted from 0) lasts {both[0, trial]} and {both[1, trial]} s: expected durations above 0"
        )
    shorter, longer = np.log(np.sort(both, axis=0))
    return {"log_shorter": shorter, "log_longer": longer}


def fit_calibration(
    scores: np.ndarray, is_target: np.ndarray, quality: Mapping[str, np.ndarray] | None = None
) -> Calibration:
    """Fit scores to LLRs on trials of speakers that neither training nor the test has seen.

    Minimises C_llr: the cross-entropy, with half of the weight on each kind of trial. Where the fit separates the
    trials perfectly, slopes would grow without limit: a ridge of 1e-4 on the squared slopes (for scores and measures of
    unit deviation) limits them to what some thousands of trials can support, and ``ridge`` of the result says so.

    Arguments
    ---------
    scores : (trials,) float, higher = more alike.
    is_target : (trials,) bool, or 0 and 1.
    quality : name -> (trials,) float, further measures such as ``log_durations``.

    Raises
    ------
    InputError : as ``error_rates``; scores or a measure that are constant; scores that are lower for targets.
    """
    scores, is_target = checked_trials(scores, is_target)
    columns = {"score": scores} | dict(quality or {})
    columns = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    for name, column in columns.items():
        if column.min() == column.max():
            raise InputError(f"every trial has {name} {column[0]}: nothing can be learnt from it, leave it out")
    centre = np.array([[column.mean()] for column in columns.values()])
    scale = np.array([[column.std()] for column in columns.values()])
    features = (np.stack(list(columns.values())) - centre) / scale  # (features, trials)
    ridge = 0.0
    slopes, offset = _fit(features, is_target, ridge)
    fitted = slopes @ features
    if fitted[is_target].min() >= fitted[~is_target].max():
        ridge = RIDGE_FOR_SEPARABLE
        slopes, offset = _fit(features, is_target, ridge)
    slopes = slopes / scale[:, 0]
    if not slopes[0] > 0.0:
        raise InputError(
            f"higher scores go with non-targets (slope {slopes[0]:.3g}): expected higher scores for targets; "
            "turn the sign of the scores or look at the labels"
        )
    return Calibration(
        slope=float(slopes[0]),
        offset=float(offset - slopes @ centre[:, 0]),
        prior=PRIOR,
        num_target=int(np.count_nonzero(is_target)),
        num_nontarget=int(np.count_nonzero(~is_target)),
        ridge=ridge,
        quality_slopes=dict(zip(list(columns)[1:], slopes[1:].tolist(), strict=True)),
    )


class FoldedCalibration:
    """LLRs of the trials that a calibration is fitted on, by cross-validation over speakers.

    The speakers are dealt into folds. A trial of speakers in folds i and j gets its LLR from a calibration on trials of
    the other folds' speakers only, so neither of its speakers influenced it.
    """

    def __init__(
        self,
        scores: np.ndarray,
        is_target: np.ndarray,
        enrol_speaker: np.ndarray,
        test_speaker: np.ndarray,
        quality: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Deal the speakers and fit.

        Arguments
        ---------
        scores, is_target, quality : as ``fit_calibration``; (trials,) each.
        enrol_speaker, test_speaker : (trials,) speaker of either side: text or numbers.

        Raises
        ------
        InputError : fewer than 8 speakers; or as ``fit_calibration``, for the trials outside one fold or two.
        """
        speakers, codes = np.unique(np.stack([enrol_speaker, test_speaker]), return_inverse=True)
        if speakers.size < FEWEST_SPEAKERS:
            raise InputError(
                f"{speakers.size} speakers: calibrating on some and judging on others needs {FEWEST_SPEAKERS} or more; "
                "give the scores of other speakers to calibrate on"
            )
        scores, is_target = np.asarray(scores), np.asarray(is_target)
        fold_of = np.random.default_rng(SEED).permutation(speakers.size) % NUM_FOLDS
        self.folds = np.sort(fold_of[codes.reshape(2, -1)].astype(np.int8), axis=0)  # (2, trials)
        self.calibrations = {}
        for pair in itertools.combinations_with_replacement(range(NUM_FOLDS), 2):
            others = ~np.isin(self.folds, pair).any(axis=0)
            chosen_quality = _chosen(quality, others)
            self.calibrations[pair] = fit_calibration(scores[others], is_target[others], quality=chosen_quality)

    def llrs(self, scores: np.ndarray, quality: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Return the LLR of each trial, (trials,) float64.

        ``scores`` and ``quality``, (trials,) each, belong to the trials of the fit, in their order: the same scores, or
        those of another condition.
        """
        scores = np.asarray(scores)
        llrs = np.empty(scores.shape)
        for (first, second), calibration in self.calibrations.items():
            chosen = (self.folds[0] == first) & (self.folds[1] == second)
            llrs[chosen] = calibration.llrs(scores[chosen], _chosen(quality, chosen))
        return llrs


def _chosen(quality: Mapping[str, np.ndarray] | None, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the quality measures of the chosen trials."""
    return {name: np.asarray(column)[chosen] for name, column in (quality or {}).items()}


def _fit(features: np.ndarray, is_target: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Minimise the weighted cross-entropy by Newton steps in a trust region: features (features, trials)."""
    from scipy.optimize import minimize  # here: it takes half a second to import, and verify.py never fits
    from scipy.special import expit

    rows = np.concatenate([features, np.ones((1, is_target.size))])
    sign = np.where(is_target, 1.0, -1.0)
    weight = np.where(is_target, PRIOR / np.count_nonzero(is_target), (1.0 - PRIOR) / np.count_nonzero(~is_target))
    penalty = np.append(np.full(len(features), ridge), 0.0)

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (beta @ rows)
        value = weight @ np.logaddexp(0.0, -margin) + 0.5 * penalty @ beta**2
        return value, rows @ (-weight * sign * expit(-margin)) + penalty * beta

    def curvature(beta: np.ndarray) -> np.ndarray:
        posterior = expit(beta @ rows)
        return (rows * (weight * posterior * (1.0 - posterior))) @ rows.T + np.diag(penalty)

    beta = minimize(
        loss, np.zeros(len(rows)), jac=True, hess=curvature, method="trust-exact", options={"gtol": FIT_TOLERANCE}
    ).x
    return beta[:-1], float(beta[-1])
