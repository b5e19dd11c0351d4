"""Scores to log-likelihood ratios (LLRs) by logistic regression, fitted on trials of held-out speakers.

``llr = slope * score + offset``, and where the durations tell how far a score can be trusted, a further slope for each
quality measure. A calibrated score has a meaning of its own: accepting from ``ln(cost of a false accept x share of
non-targets / cost of a miss x share of targets)`` on is the cheapest decision, for any costs and shares.

Source: Bruemmer and Doddington 2013, "Likelihood-ratio calibration using prior-weighted proper scoring rules";
Mandasari et al. 2013, "Quality measure functions for calibration of speaker recognition systems in various duration
conditions" (log durations).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import checked_trials

FIT_TOLERANCE = 1e-10  # of the gradient, for scores scaled to unit deviation
HOLDING_RIDGE = 1e-4  # holds the slope for separable trials to what some thousands of them could answer for


class SeparableError(InputError):
    """Targets and non-targets do not overlap, so that no finite log-likelihood ratio is justified."""


@dataclass(frozen=True)
class Calibration:
    """An affine map from scores to natural log-likelihood ratios.

    slope : LLR per unit of score, above 0. offset : LLR of score 0 (and quality 0).
    quality_slopes : name -> LLR per unit of that quality measure; empty if none is used.
    prior : the prior of a target at which the fit weighted the two kinds.
    ridge : the penalty on slopes, 0 for none.
    num_target, num_nontarget : trials it was fitted on.
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

        ``quality`` must hold the measures that the calibration was fitted with, (trials,) each. Raises InputError
        when one is missing, too many, or not one finite number per trial.
        """
        scores = np.asarray(scores, np.float64)
        columns = _quality_columns(quality, list(self.quality_slopes), scores.shape)
        llrs = self.slope * scores + self.offset
        for name, column in columns.items():
            llrs += self.quality_slopes[name] * column
        return llrs

    def score_at(self, llr: float) -> float:
        """Return the score whose LLR is ``llr``; InputError where the LLR depends on more than the score."""
        if self.quality_slopes:
            raise InputError(
                f"the calibration also uses {', '.join(self.quality_slopes)}: there is no one score threshold; "
                "compare log-likelihood ratios with the threshold instead"
            )
        return (llr - self.offset) / self.slope

    def to_dict(self) -> dict[str, object]:
        """Return a dictionary for JSON, from which ``from_dict`` makes an equal calibration."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> "Calibration":
        """Return the calibration that ``to_dict`` wrote; InputError where a value is missing, unknown or no number."""
        expected = set(cls.__dataclass_fields__)
        if not isinstance(content, Mapping) or set(content) != expected:
            found = sorted(content) if isinstance(content, Mapping) else type(content).__name__
            raise InputError(f"a calibration holds {sorted(expected)}, found {found}: write it with to_dict again")
        slopes = content["quality_slopes"]
        if not isinstance(slopes, Mapping):
            raise InputError(f"the calibration's quality_slopes are {slopes!r}: expected names with numbers")
        numbers = {name: value for name, value in content.items() if name != "quality_slopes"}
        for name, value in (*numbers.items(), *slopes.items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"the calibration's {name} is {value!r}: expected a finite number")
        if not numbers["slope"] > 0.0:
            raise InputError(f"the calibration's slope is {numbers['slope']}: expected a number above 0")
        return cls(**numbers, quality_slopes=dict(slopes))


def log_durations(enrol_duration_s: np.ndarray, test_duration_s: np.ndarray) -> dict[str, np.ndarray]:
    """Return the quality measures ``log_shorter`` and ``log_longer``: logarithms of the two durations of each trial.

    Sorted, so that exchanging enrolment and test changes nothing.

    Arguments
    ---------
    enrol_duration_s, test_duration_s : (trials,) float, seconds, above 0.

    Raises
    ------
    InputError : a duration is not a finite number above 0; the first such trial is named.
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
    scores: np.ndarray,
    is_target: np.ndarray,
    prior: float = 0.5,
    quality: Mapping[str, np.ndarray] | None = None,
    ridge: float = 0.0,
) -> Calibration:
    """Fit scores to LLRs on trials of speakers that neither training nor the test has seen.

    Minimises the cross-entropy of both kinds of trials, each kind weighted to its prior whatever its number; at prior
    0.5 that is C_llr. The fit is best near the LLRs where errors would cost most at that prior.

    Arguments
    ---------
    scores : (trials,) float, higher = more alike.
    is_target : (trials,) bool, or 0 and 1.
    prior : of a target, in (0, 1).
    quality : name -> (trials,) float, further measures such as ``log_durations``.
    ridge : penalty on the squared slopes (for scores and measures of unit deviation), in units of the cross-entropy;
        0 for none. 1e-4 holds separable trials to a slope that their number can answer for.

    Raises
    ------
    InputError : as ``metrics.error_rates``; scores or a measure that are constant; trials that the fit separates
        perfectly (no finite LLR is justified) with ``ridge`` 0; scores that are lower for targets.
    """
    scores, is_target = checked_trials(scores, is_target)
    if not 0.0 < prior < 1.0:
        raise InputError(f"prior is {prior}: the prior of a target trial lies between 0 and 1, both excluded")
    if not 0.0 <= ridge < math.inf:
        raise InputError(f"ridge is {ridge}: expected 0 or a small positive number")
    columns = {"score": scores.astype(np.float64)} | _quality_columns(quality, None, scores.shape)
    centre, scale = _centre_and_scale(columns)
    features = (np.stack(list(columns.values())) - centre) / scale  # (features, trials)
    slopes, offset = _fit(features, is_target, prior, ridge)
    if ridge == 0.0:
        _check_overlap(slopes @ features, is_target)
    slopes = slopes / scale[:, 0]
    if not slopes[0] > 0.0:
        raise InputError(
            f"higher scores go with non-targets (slope {slopes[0]:.3g}): expected higher scores for targets; "
            "turn the sign of the scores or look at the labels"
        )
    return Calibration(
        slope=float(slopes[0]),
        offset=float(offset - slopes @ centre[:, 0]),
        prior=float(prior),
        num_target=int(np.count_nonzero(is_target)),
        num_nontarget=int(np.count_nonzero(~is_target)),
        ridge=float(ridge),
        quality_slopes=dict(zip(list(columns)[1:], slopes[1:].tolist(), strict=True)),
    )


def fit_calibration_holding_down(
    scores: np.ndarray,
    is_target: np.ndarray,
    prior: float = 0.5,
    quality: Mapping[str, np.ndarray] | None = None,
) -> Calibration:
    """Return ``fit_calibration``, with a ridge of 1e-4 where the trials are separable; ``ridge`` of the result tells.

    Raises InputError as ``fit_calibration``, except for separable trials.
    """
    try:
        return fit_calibration(scores, is_target, prior, quality)
    except SeparableError:
        return fit_calibration(scores, is_target, prior, quality, ridge=HOLDING_RIDGE)


def _fit(features: np.ndarray, is_target: np.ndarray, prior: float, ridge: float) -> tuple[np.ndarray, float]:
    """Minimise the prior-weighted cross-entropy by Newton steps in a trust region: features (features, trials)."""
    from scipy.optimize import minimize  # here, since using a calibration need not wait half a second for it
    from scipy.special import expit

    rows = np.concatenate([features, np.ones((1, is_target.size))])
    sign = np.where(is_target, 1.0, -1.0)
    weight = np.where(is_target, prior / np.count_nonzero(is_target), (1.0 - prior) / np.count_nonzero(~is_target))
    penalty = np.append(np.full(len(features), ridge), 0.0)
    log_odds = math.log(prior / (1.0 - prior))

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (beta @ rows + log_odds)
        value = weight @ np.logaddexp(0.0, -margin) + 0.5 * penalty @ beta**2
        return value, rows @ (-weight * sign * expit(-margin)) + penalty * beta

    def curvature(beta: np.ndarray) -> np.ndarray:
        posterior = expit(beta @ rows + log_odds)
        return (rows * (weight * posterior * (1.0 - posterior))) @ rows.T + np.diag(penalty)

    beta = minimize(
        loss, np.zeros(len(rows)), jac=True, hess=curvature, method="trust-exact", options={"gtol": FIT_TOLERANCE}
    ).x
    return beta[:-1], float(beta[-1])


def _check_overlap(fitted: np.ndarray, is_target: np.ndarray) -> None:
    """Raise InputError when no non-target lies above a target on the fitted scale (trials,): slopes grow forever."""
    if fitted[is_target].min() >= fitted[~is_target].max():
        raise SeparableError(
            f"{np.count_nonzero(is_target)} target and {np.count_nonzero(~is_target)} non-target trials are perfectly "
            "separable, so no finite log-likelihood ratio is justified: calibrate on more, or harder, trials, "
            "or give ridge=1e-4 for slopes held down"
        )


def _centre_and_scale(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each column, (columns, 1) each; InputError for one that is constant."""
    for name, column in columns.items():
        if column.min() == column.max():
            raise InputError(f"every trial has {name} {column[0]}: nothing can be learnt from it, leave it out")
    centre = np.array([[column.mean()] for column in columns.values()])
    return centre, np.array([[column.std()] for column in columns.values()])


def _quality_columns(
    quality: Mapping[str, np.ndarray] | None, names: list[str] | None, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Return the quality measures as floats, checked against the wanted ``names`` (None: any) and trials."""
    quality = {} if quality is None else quality
    if names is not None and set(names) != set(quality):
        raise InputError(
            f"the calibration was fitted with the quality measures {sorted(names)}, found {sorted(quality)}: "
            "give the same ones"
        )
    columns = {name: np.asarray(column, np.float64) for name, column in quality.items()}
    if "score" in columns:
        raise InputError("a quality measure is called score: that is the score's own name, choose another")
    for name, column in columns.items():
        if column.shape != shape or not np.isfinite(column).all():
            raise InputError(f"quality measure {name} of shape {column.shape}: expected a finite number for {shape}")
    return columns
