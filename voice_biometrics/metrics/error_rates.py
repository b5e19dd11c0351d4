"""Scores of target and non-target trials to error rates: EER, minDCF, FRR at a stated FAR.

One convention throughout: a trial is accepted when ``score >= threshold``, tied scores share one
operating point, rates are fractions (per cent only when printed). Scores are never rounded.

Source: NIST Speaker Recognition Evaluation plans, for the detection cost and its normalisation; FVC2006
(https://bias.csr.unibo.it/fvc2006) for the FRR at a FAR (its FMR100 is ``frr_at_far(..., max_far=0.01)``).

How low a false-accept rate a list of trials can speak of, and the FRR at stated FARs with that mark.

Two rules for N non-target trials, both for independent trials (trials that share speakers support less):

- rule of 3: no error in N trials shows, at 95 %, a rate of at most 3 / N; a FAR under that is out of reach;
- rule of 30: 30 errors give the rate to within 30 %, at 90 %; with fewer it is known coarsely.

Source: Doddington et al. 2000, "The NIST speaker recognition evaluation - overview, methodology, systems, results,
perspective" (rule of 30); ISO/IEC 19795-1 (both rules).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from voice_biometrics.common.errors import InputError


class Cost(NamedTuple):
    """What a detection cost weighs: the prior of a target trial, and what a false rejection and acceptance cost."""

    p_target: float
    c_miss: float = 1.0
    c_fa: float = 1.0

    def in_words(self) -> str:
        """Say what it weighs."""
        costs = "" if self[1:] == (1.0, 1.0) else f", c_miss {self.c_miss:g}, c_fa {self.c_fa:g}"
        return f"p_target {self.p_target:g}{costs}"


USUAL_COSTS = (Cost(0.01), Cost(0.05))


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """Every operating point of a list of trials, from accept all to reject all.

    thresholds : (points,) float, strictly growing: each distinct score, then ``inf`` (reject all).
    far : (points,) float, share of non-target trials with ``score >= threshold``, from 1 down to 0.
    frr : (points,) float, share of target trials with ``score < threshold``, from 0 up to 1.
    num_target, num_nontarget : how many trials of each kind the rates are shares of.
    """

    thresholds: np.ndarray
    far: np.ndarray
    frr: np.ndarray
    num_target: int
    num_nontarget: int

    def equal_error_rate(self) -> tuple[float, float]:
        """Return (EER, threshold): see the function of the same name."""
        eer, right = meeting_point(self.far, self.frr)
        return eer, float(self.thresholds[right])

    def min_dcf(self, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> tuple[float, float]:
        """Return (minDCF, threshold): see the function of the same name."""
        cost = self._costs(slice(None), p_target, c_miss, c_fa)
        best = int(np.argmin(cost))
        return float(cost[best]), float(self.thresholds[best])

    def dcf_at(self, threshold: float, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """Return the normalised detection cost of accepting from ``threshold`` on, as ``min_dcf`` is normalised."""
        first = int(np.searchsorted(self.thresholds, threshold))  # between two points nothing changes
        return float(self._costs(first, p_target, c_miss, c_fa))

    def _costs(self, points: slice | int, p_target: float, c_miss: float, c_fa: float) -> np.ndarray | float:
        """Return the normalised detection cost of some operating points."""
        miss_weight, fa_weight = normalised_weights(p_target, c_miss, c_fa)
        cost = miss_weight * self.frr[points]
        cost += fa_weight * self.far[points]
        return cost

    def frr_at_far(self, max_far: float) -> tuple[float, float]:
        """Return (FRR, threshold): see the function of the same name."""
        check_far(max_far)
        first = int(np.searchsorted(-self.far, -max_far))  # -far grows: the first point with far <= max_far
        return float(self.frr[first]), float(self.thresholds[first])


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
    starts_group = np.append(True, ordered[1:] != ordered[:-1])  # ties form one group
    num_below = np.append(np.flatnonzero(starts_group), scores.size)  # trials under each threshold
    thresholds = ordered[num_below[:-1]]
    # Only the rarer kind is looked up, the other is the rest: this saves sorting labels along with scores.
    rare = is_target if num_target <= num_nontarget else ~is_target
    rare_below = _count_below(thresholds, np.sort(scores[rare]))
    other_below = num_below - rare_below
    target_below, nontarget_below = (
        (rare_below, other_below) if num_target <= num_nontarget else (other_below, rare_below)
    )
    return ErrorRates(
        thresholds=np.append(thresholds, np.asarray(np.inf, thresholds.dtype)),
        far=(num_nontarget - nontarget_below) / num_nontarget,
        frr=target_below / num_target,
        num_target=num_target,
        num_nontarget=num_nontarget,
    )


def equal_error_rate(scores: np.ndarray, is_target: np.ndarray) -> tuple[float, float]:
    """Return the equal error rate, a fraction, and the threshold where it is reached.

    The EER is read on the straight line between the two operating points where FRR overtakes FAR; the
    threshold is that of the second of them, ``inf`` when it is "reject all" (as for all-tied scores).

    Arguments, Raises: as ``error_rates``.
    """
    return error_rates(scores, is_target).equal_error_rate()


def min_dcf(
    scores: np.ndarray, is_target: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> tuple[float, float]:
    """Return the smallest normalised detection cost over all thresholds, and the lowest threshold that has it.

    ``(c_miss p_target FRR + c_fa (1 - p_target) FAR) / min(c_miss p_target, c_fa (1 - p_target))``: at most
    1.0, which is the cost of the better of accepting all and rejecting all (threshold ``inf``).

    Arguments
    ---------
    scores, is_target : as ``error_rates``.
    p_target : prior probability of a target trial, in (0, 1).
    c_miss, c_fa : cost of one false rejection and of one false acceptance, positive.

    Raises
    ------
    InputError : as ``error_rates``, or a prior or a cost is out of its range.

    Source: NIST SRE 2019-2021 evaluation plans, "Performance Measurement" (normalised detection cost).
    """
    return error_rates(scores, is_target).min_dcf(p_target, c_miss, c_fa)


def frr_at_far(scores: np.ndarray, is_target: np.ndarray, max_far: float) -> tuple[float, float]:
    """Return the lowest FRR among thresholds whose FAR is at most ``max_far``, and that threshold.

    Nothing is interpolated: the threshold really has this FRR, and a FAR within the limit, on these trials.

    Arguments
    ---------
    scores, is_target : as ``error_rates``.
    max_far : the limit, a fraction: 0.01 for FVC's FMR100, 0.001 for FMR1000, 0 for ZeroFMR.

    Raises
    ------
    InputError : as ``error_rates``, or ``max_far`` lies outside 0 to 1.
    """
    return error_rates(scores, is_target).frr_at_far(max_far)


def summary(scores: np.ndarray, is_target: np.ndarray, costs: Sequence[Cost] = USUAL_COSTS) -> dict[str, object]:
    """Return the figures of ``metrics.json``, ready for ``json.dump``, from one sweep over the scores.

    Keys: ``eer`` (fraction), ``eer_threshold``, ``min_dcf`` (one entry per cost with ``value``, ``p_target``,
    ``c_miss``, ``c_fa`` and ``threshold``), ``num_target``, ``num_nontarget``. A threshold of None
    (JSON null) means "reject all": JSON has no infinity.

    Arguments
    ---------
    scores, is_target : as ``error_rates``.
    costs : priors and costs of errors, for minDCF.

    Raises
    ------
    InputError : as ``error_rates`` and ``min_dcf``.
    """
    rates = error_rates(scores, is_target)
    eer, eer_threshold = rates.equal_error_rate()
    return {
        "eer": eer,
        "eer_threshold": _finite_or_none(eer_threshold),
        "min_dcf": [dcf_entry(cost, *rates.min_dcf(*cost)) for cost in costs],
        "num_target": rates.num_target,
        "num_nontarget": rates.num_nontarget,
    }


def dcf_entry(cost: Cost, value: float, threshold: float) -> dict[str, float | None]:
    """Return what ``metrics.json`` says of a detection cost."""
    return {"value": value, **cost._asdict(), "threshold": _finite_or_none(threshold)}


def meeting_point(far: np.ndarray, frr: np.ndarray) -> tuple[float, int]:
    """Return the EER on the line between the two points where FRR overtakes FAR, and the second of the two points.

    far, frr : (points,) float, from accept all (FAR 1) to reject all (FRR 1).
    """
    gap = frr - far  # climbs from -1 to +1
    right = int(np.searchsorted(gap, 0.0))  # the first point where FRR has caught up with FAR
    step = gap[right - 1] / (gap[right - 1] - gap[right])
    return float(frr[right - 1] + step * (frr[right] - frr[right - 1])), right


def check_far(max_far: float) -> None:
    """Raise InputError unless ``max_far`` is a fraction."""
    if not 0.0 <= max_far <= 1.0:
        raise InputError(f"max_far is {max_far}: give a fraction from 0 to 1 (1 % is 0.01)")


def _count_below(thresholds: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Count the ``ordered`` scores, each one of ``thresholds``, below each threshold and below infinity."""
    per_threshold = np.bincount(np.searchsorted(thresholds, ordered), minlength=thresholds.size)
    return np.append(0, np.cumsum(per_threshold))  # (thresholds + 1,)


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
    if is_target.dtype != bool:
        is_target = _labels_to_bool(is_target)
    num_target = int(np.count_nonzero(is_target))
    if num_target in (0, scores.size):
        raise InputError(
            f"{num_target} target and {scores.size - num_target} non-target trials: error rates need both kinds"
        )
    return scores, is_target


def _labels_to_bool(labels: np.ndarray) -> np.ndarray:
    """Return 0 / 1 labels as bool; anything else is an error that names the first trial at fault."""
    known = np.isin(labels, (0, 1)) if labels.dtype.kind not in "US" else np.zeros(labels.shape, bool)
    if not known.all():
        first = int(np.argmin(known))
        raise InputError(
            f"trial {first} (counted from 0) has label {labels[first]!r}: use 1 for target, 0 for non-target"
        )
    return labels == 1


def normalised_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """Return what one unit of FRR and of FAR adds to the normalised detection cost."""
    if not 0.0 < p_target < 1.0:
        raise InputError(f"p_target is {p_target}: the prior of a target trial lies between 0 and 1, both excluded")
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0.0 < cost < np.inf:
            raise InputError(f"{name} is {cost}: a cost is a positive number")
    miss, false_accept = c_miss * p_target, c_fa * (1.0 - p_target)
    cheapest_blind = min(miss, false_accept)
    return miss / cheapest_blind, false_accept / cheapest_blind


def _finite_or_none(threshold: float) -> float | None:
    """JSON has no infinity: "reject all" becomes None."""
    return threshold if np.isfinite(threshold) else None


SUPPORTED, COARSE, UNSUPPORTED = "supported", "coarse", "unsupported"
ERRORS_FOR_ANY_CLAIM = 3
ERRORS_FOR_30_PER_CENT = 30
USUAL_FARS = (0.01, 0.001, 0.0001)  # FVC's FMR100, FMR1000 and one decade further


def far_support(max_far: float, num_nontarget: int) -> str:
    """Say whether ``num_nontarget`` trials can speak of a FAR of ``max_far`` (a fraction).

    Returns ``"supported"`` where the FAR is at least 30 errors in these trials, ``"coarse"`` where it is fewer, and
    ``"unsupported"`` where it is fewer than 3. Raises InputError when ``max_far`` lies outside 0 to 1.
    """
    check_far(max_far)
    num_errors = round(max_far * num_nontarget, 6)  # 0.07 * 100 is 7.000000000000001
    if num_errors >= ERRORS_FOR_30_PER_CENT:
        return SUPPORTED
    return COARSE if num_errors >= ERRORS_FOR_ANY_CLAIM else UNSUPPORTED


@dataclass(frozen=True)
class SupportedFrr:
    """The FRR where the FAR is at most ``max_far``, withheld (None) where the trials cannot support such a FAR.

    max_far : the limit, a fraction.
    support : "supported", "coarse" (fewer than 30 errors at this FAR) or "unsupported" (fewer than 3).
    frr : fraction, or None.
    threshold : the lowest score that keeps to the limit, or None ("reject all", or unsupported).
    num_nontarget : non-target trials of the list.
    needed_nontarget : how many a "supported" result takes.
    """

    max_far: float
    support: str
    frr: float | None
    threshold: float | None
    num_nontarget: int
    needed_nontarget: int

    def remark(self) -> str:
        """Say in one sentence what the mark means; nothing where the FAR is supported."""
        if self.support == SUPPORTED:
            return ""
        errors = self.max_far * self.num_nontarget
        verdict = "known coarsely" if self.support == COARSE else "not supported, so no FRR is given"
        return (
            f"FAR {100 * self.max_far:g} % is {verdict}: it is {errors:.1f} false accepts in {self.num_nontarget:,} "
            f"non-target trials; have {self.needed_nontarget:,} (30 false accepts)"
        )


def supported_frr_at_far(rates: ErrorRates, max_fars: Sequence[float] = USUAL_FARS) -> list[SupportedFrr]:
    """Return the FRR at each FAR limit, marked by what the number of non-target trials supports.

    Arguments
    ---------
    rates : every operating point of the trials, from ``metrics.error_rates``.
    max_fars : the limits, fractions above 0.

    Raises
    ------
    InputError : a limit is 0, negative or above 1.
    """
    return [_supported_frr(rates, max_far) for max_far in max_fars]


def _supported_frr(rates: ErrorRates, max_far: float) -> SupportedFrr:
    """One entry of ``supported_frr_at_far``."""
    if not max_far > 0.0:
        raise InputError(f"max_far is {max_far}: no number of trials shows a FAR of 0; give a fraction above 0")
    support = far_support(max_far, rates.num_nontarget)
    frr, threshold = (None, None) if support == UNSUPPORTED else rates.frr_at_far(max_far)
    return SupportedFrr(
        max_far=max_far,
        support=support,
        frr=frr,
        threshold=threshold if threshold is not None and np.isfinite(threshold) else None,
        num_nontarget=rates.num_nontarget,
        needed_nontarget=int(np.ceil(round(ERRORS_FOR_30_PER_CENT / max_far, 6))),
    )
