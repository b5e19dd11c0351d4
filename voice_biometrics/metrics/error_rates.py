"""Scores of target and non-target trials to error rates: EER, minDCF, FRR at a FAR, and the FARs a list supports.

One convention throughout: a trial is accepted when ``score >= threshold``, tied scores share one operating point, rates
are fractions (per cent only when printed). Scores are never rounded.

Two rules say how low a FAR N non-target trials support; both assume independent trials (trials that share speakers
support less):

- rule of 3: no error in N trials shows, at 95 % confidence, a rate of at most 3 / N; a lower FAR is out of reach;
- rule of 30: 30 errors give the rate to within 30 %, at 90 % confidence; fewer give a coarse estimate.

Source: NIST SRE 2019-2021 evaluation plans, "Performance Measurement" (detection cost and its normalisation); FVC2006
(https://bias.csr.unibo.it/fvc2006; its FMR100 is the FRR at a FAR of 0.01); Doddington et al. 2000, "The NIST speaker
recognition evaluation - overview, methodology, systems, results, perspective" (rule of 30); ISO/IEC 19795-1 (both).
"""

import bisect
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voice_biometrics.common.errors import InputError

SUPPORTED, COARSE, UNSUPPORTED = "supported", "coarse", "unsupported"
ERRORS_FOR_ANY_CLAIM = 3
ERRORS_FOR_30_PER_CENT = 30
USUAL_FARS = (0.01, 0.001, 0.0001)  # FVC's FMR100, FMR1000 and one decade further


class Cost(NamedTuple):
    """Parameters of a detection cost: prior of a target trial, cost of a false rejection and of a false acceptance."""

    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    def in_words(self) -> str:
        """Return the parameters as text, costs of 1 omitted."""
        costs = "" if self[1:] == (1.0, 1.0) else f", c_miss {self.c_miss:g}, c_fa {self.c_fa:g}"
        return f"p_target {self.p_target:g}{costs}"


USUAL_COSTS = (Cost(0.01), Cost(0.05))


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """Every operating point of a list of trials, from accept all to reject all.

    thresholds : (points,) float, strictly growing: each distinct score, then ``inf`` (reject all).
    far : (points,) float, fraction of non-target trials with ``score >= threshold``, from 1 down to 0.
    frr : (points,) float, fraction of target trials with ``score < threshold``, from 0 up to 1.
    num_target, num_nontarget : trials of each kind.
    """

    thresholds: np.ndarray
    far: np.ndarray
    frr: np.ndarray
    num_target: int
    num_nontarget: int

    def equal_error_rate(self) -> tuple[float, float]:
        """Return (EER, threshold).

        The EER is interpolated linearly between the two operating points where FRR overtakes FAR; the threshold is that
        of the second point, ``inf`` when it is "reject all" (as for all-tied scores).
        """
        eer, right = meeting_point(self.far, self.frr)
        return float(eer), float(self.thresholds[right])

    def min_dcf(self, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> tuple[float, float]:
        """Return the smallest normalised detection cost over all thresholds, and the lowest threshold that has it.

        ``(c_miss p_target FRR + c_fa (1 - p_target) FAR) / min(c_miss p_target, c_fa (1 - p_target))``: at most 1.0,
        the cost of the better of accepting all and rejecting all (threshold ``inf``).

        Arguments
        ---------
        p_target : prior probability of a target trial, in (0, 1).
        c_miss, c_fa : cost of one false rejection and of one false acceptance, positive.

        Raises
        ------
        InputError : the prior or a cost is out of its range.
        """
        miss_weight, fa_weight = normalised_weights(p_target, c_miss, c_fa)
        cost = miss_weight * self.frr
        cost += fa_weight * self.far
        best = int(np.argmin(cost))
        return float(cost[best]), float(self.thresholds[best])

    def frr_at_far(self, max_far: float) -> tuple[float, float]:
        """Return the lowest FRR among thresholds with a FAR of at most ``max_far``, and that threshold.

        Nothing is interpolated: the threshold has this FRR, and a FAR within the limit, on these trials. ``max_far`` is
        a fraction: 0.01 for FVC's FMR100, 0.001 for FMR1000, 0 for ZeroFMR; InputError outside 0 to 1.
        """
        check_far(max_far)
        first = bisect.bisect_left(self.far, -max_far, key=operator.neg)  # -far grows: the first far <= max_far
        return float(self.frr[first]), float(self.thresholds[first])

    def summary(self, costs: Sequence[Cost] = USUAL_COSTS) -> dict[str, object]:
        """Return the figures of ``metrics.json``, ready for ``json.dump``.

        Keys: ``eer`` (fraction), ``eer_threshold``, ``min_dcf`` (one ``dcf_entry`` per cost), ``num_target``,
        ``num_nontarget``. A threshold of None means "reject all": JSON has no infinity.
        """
        eer, eer_threshold = self.equal_error_rate()
        return {
            "eer": eer,
            "eer_threshold": _finite_or_none(eer_threshold),
            "min_dcf": [dcf_entry(cost, *self.min_dcf(*cost)) for cost in costs],
            "num_target": self.num_target,
            "num_nontarget": self.num_nontarget,
        }


def error_rates(scores: np.ndarray, is_target: np.ndarray) -> ErrorRates:
    """Return FAR and FRR at every threshold that tells these trials apart.

    Arguments
    ---------
    scores : (trials,) float, higher = more alike.
    is_target : (trials,) bool, or 0 and 1.

    Returns
    -------
    One point per distinct score plus the last, ``inf`` = reject all.

    Raises
    ------
    InputError : shapes differ, a score is not finite, a label is not 0 or 1, or one kind of trial is missing.
    """
    scores, is_target = checked_trials(scores, is_target)
    num_target = int(np.count_nonzero(is_target))
    num_nontarget = scores.size - num_target
    ordered = np.sort(scores)
    starts_tie = np.append(True, ordered[1:] != ordered[:-1])
    num_below = np.append(np.flatnonzero(starts_tie), scores.size)  # trials below each threshold
    thresholds = ordered[num_below[:-1]]
    # Only the rarer kind is looked up, the other is the rest: this saves sorting labels along with scores.
    targets_are_rare = num_target <= num_nontarget
    rare = np.sort(scores[is_target == targets_are_rare])
    per_threshold = np.bincount(np.searchsorted(thresholds, rare), minlength=thresholds.size)
    rare_below = np.append(0, np.cumsum(per_threshold))  # (points,)
    target_below = rare_below if targets_are_rare else num_below - rare_below
    return ErrorRates(
        thresholds=np.append(thresholds, np.asarray(np.inf, thresholds.dtype)),
        far=(num_nontarget - (num_below - target_below)) / num_nontarget,
        frr=target_below / num_target,
        num_target=num_target,
        num_nontarget=num_nontarget,
    )


def equal_error_rate(scores: np.ndarray, is_target: np.ndarray) -> tuple[float, float]:
    """Return (EER, threshold) as ``ErrorRates.equal_error_rate``; arguments and errors as ``error_rates``."""
    return error_rates(scores, is_target).equal_error_rate()


def dcf_entry(cost: Cost, value: float, threshold: float) -> dict[str, float | None]:
    """Return an entry of ``metrics.json``: ``value``, ``p_target``, ``c_miss``, ``c_fa`` and ``threshold``."""
    return {"value": value, **cost._asdict(), "threshold": _finite_or_none(threshold)}


def meeting_point(far: np.ndarray, frr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the EER on the line between the two points where FRR overtakes FAR, and the second of the two points.

    far, frr : (points,) float, from accept all (FAR 1) to reject all (FRR 1); or (points, lists), for many at once.
    """
    right = np.argmax(frr >= far, axis=0)
    after = right, *np.indices(right.shape)
    before = right - 1, *after[1:]
    step = (frr[before] - far[before]) / ((frr[before] - far[before]) - (frr[after] - far[after]))
    return frr[before] + step * (frr[after] - frr[before]), right


def check_far(max_far: float) -> None:
    """Raise InputError unless ``max_far`` is a fraction."""
    if not 0.0 <= max_far <= 1.0:
        raise InputError(f"max_far is {max_far}: give a fraction from 0 to 1 (1 % is 0.01)")


def checked_trials(scores: np.ndarray, is_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores as floats and the labels as bool, or raise InputError naming the first bad trial."""
    scores, is_target = np.asarray(scores), np.asarray(is_target)
    if scores.ndim != 1 or scores.shape != is_target.shape:
        raise InputError(
            f"one score and one label per trial: found scores of shape {scores.shape} and labels of shape "
            f"{is_target.shape}; give two lists of the same length"
        )
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        first = int(np.argmin(np.isfinite(scores)))
        raise InputError(f"trial {first} (counted from 0) has score {scores[first]}: scores must be finite numbers")
    return scores, checked_labels(is_target)


def checked_labels(is_target: np.ndarray) -> np.ndarray:
    """Return labels (trials,) as bool; InputError for other labels than 0 and 1, or if one kind is missing."""
    labels = np.asarray(is_target)
    if labels.dtype != bool:
        known = np.isin(labels, (0, 1)) if labels.dtype.kind not in "US" else np.zeros(labels.shape, bool)
        if not known.all():
            first = int(np.argmin(known))
            raise InputError(
                f"trial {first} (counted from 0) has label {labels[first]!r}: use 1 for target, 0 for non-target"
            )
        labels = labels == 1
    num_target = int(np.count_nonzero(labels))
    if num_target in (0, labels.size):
        raise InputError(
            f"{num_target} target and {labels.size - num_target} non-target trials: error rates need both kinds"
        )
    return labels


def normalised_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """Return the normalised detection cost of one unit of FRR and of one unit of FAR."""
    if not 0.0 < p_target < 1.0:
        raise InputError(f"p_target is {p_target}: expected the prior of a target trial, above 0 and below 1")
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0.0 < cost < np.inf:
            raise InputError(f"{name} is {cost}: a cost is a positive number")
    miss, false_accept = c_miss * p_target, c_fa * (1.0 - p_target)
    cheapest_blind = min(miss, false_accept)
    return miss / cheapest_blind, false_accept / cheapest_blind


def _finite_or_none(threshold: float) -> float | None:
    return threshold if np.isfinite(threshold) else None


def far_support(max_far: float, num_nontarget: int) -> str:
    """Return how well ``num_nontarget`` trials support a FAR of ``max_far`` (a fraction).

    ``"supported"`` where the FAR is at least 30 errors in these trials, ``"coarse"`` where it is fewer, and
    ``"unsupported"`` where it is fewer than 3. Raises InputError when ``max_far`` is outside 0 to 1.
    """
    check_far(max_far)
    num_errors = round(max_far * num_nontarget, 6)  # 0.07 * 100 is 7.000000000000001
    if num_errors >= ERRORS_FOR_30_PER_CENT:
        return SUPPORTED
    return COARSE if num_errors >= ERRORS_FOR_ANY_CLAIM else UNSUPPORTED


@dataclass(frozen=True)
class SupportedFrr:
    """FRR at a FAR limit, withheld (None) where the trials do not support such a FAR.

    max_far : the limit, a fraction.
    support : as ``far_support``.
    frr : fraction, or None.
    threshold : the lowest score that keeps to the limit, or None ("reject all", or unsupported).
    num_nontarget : non-target trials of the list.
    needed_nontarget : the number that makes ``max_far`` "supported".
    """

    max_far: float
    support: str
    frr: float | None
    threshold: float | None
    num_nontarget: int
    needed_nontarget: int

    @classmethod
    def of(cls, rates: ErrorRates, max_far: float) -> "SupportedFrr":
        """Read the FRR off ``rates``; InputError when ``max_far`` is 0, negative or above 1."""
        if not max_far > 0.0:
            raise InputError(f"max_far is {max_far}: no number of trials shows a FAR of 0; give a fraction above 0")
        support = far_support(max_far, rates.num_nontarget)
        frr, threshold = (None, np.inf) if support == UNSUPPORTED else rates.frr_at_far(max_far)
        needed = int(np.ceil(round(ERRORS_FOR_30_PER_CENT / max_far, 6)))
        return cls(max_far, support, frr, _finite_or_none(threshold), rates.num_nontarget, needed)

    def remark(self) -> str:
        """Return a sentence on the support; empty where the FAR is supported."""
        if self.support == SUPPORTED:
            return ""
        errors = self.max_far * self.num_nontarget
        verdict = "known coarsely" if self.support == COARSE else "not supported, so no FRR is given"
        return (
            f"FAR {100 * self.max_far:g} % is {verdict}: it is {errors:.1f} false accepts in {self.num_nontarget:,} "
            f"non-target trials; have {self.needed_nontarget:,} (30 false accepts)"
        )
