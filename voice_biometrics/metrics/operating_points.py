"""Decision thresholds for stated uses: chosen on held-out trials, measured on any trials, described in words.

Thresholds are log-likelihood ratios (``voice_biometrics.metrics.calibration``). Three uses:

- ``smart_speaker``: convenience first, FAR 1 %;
- ``door``: safety first, FAR 0.01 %, or the lowest FAR that the trials support;
- ``custom``: the costs of both errors and the prior of a target; the threshold follows from these alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import Interval, SpeakerBootstrap, far_at, frr_at
from voice_biometrics.metrics.error_rates import (
    ERRORS_FOR_30_PER_CENT,
    ERRORS_FOR_ANY_CLAIM,
    UNSUPPORTED,
    Cost,
    error_rates,
    far_support,
)
from voice_biometrics.metrics.formatting import per_cent
from voice_biometrics.metrics.llr import bayes_threshold


@dataclass(frozen=True)
class Use:
    """A use that limits the FAR.

    max_far : the FAR wanted, a fraction. highest_far : the highest FAR to settle for where the trials support no lower.
    """

    name: str
    max_far: float
    highest_far: float


@dataclass(frozen=True)
class CustomUse:
    """A use with costs: the threshold has the least expected cost."""

    cost: Cost
    name: str = "custom"


SMART_SPEAKER = Use("smart_speaker", max_far=0.01, highest_far=0.01)
DOOR = Use("door", max_far=0.0001, highest_far=0.01)


@dataclass(frozen=True)
class ChosenThreshold:
    """A decision threshold and the rule that chose it.

    use : name of the use. threshold : accept from this LLR.
    max_far : the limit on the FAR of the held-out trials; None where costs decided.
    support : of that limit, "supported" or "coarse"; None likewise. rule : the rule in words.
    """

    use: str
    threshold: float
    max_far: float | None
    support: str | None
    rule: str


@dataclass(frozen=True)
class PointResult:
    """FAR and FRR of a threshold on a list of trials, with intervals, and the counts behind them."""

    threshold: float
    far: Interval
    frr: Interval
    num_false_accepts: int
    num_false_rejects: int
    num_target: int
    num_nontarget: int


def choose_threshold(use: Use | CustomUse, llrs: np.ndarray, is_target: np.ndarray) -> ChosenThreshold:
    """Choose the threshold of a use on held-out trials, never on the test.

    Arguments
    ---------
    use : ``SMART_SPEAKER``, ``DOOR`` or a ``CustomUse``.
    llrs : (trials,) float, log-likelihood ratios of trials of held-out speakers.
    is_target : (trials,) bool, or 0 and 1.

    Raises
    ------
    InputError : as ``error_rates``; a prior or a cost is out of its range; too few non-target trials for the use; or
        scores so tied that only "reject all" keeps to the FAR.
    """
    if isinstance(use, CustomUse):
        rule = "the Bayes threshold for p_target {:g}, c_miss {:g}, c_fa {:g}".format(*use.cost)
        return ChosenThreshold(use.name, bayes_threshold(*use.cost), max_far=None, support=None, rule=rule)
    rates = error_rates(llrs, is_target)
    max_far = _supported_far(use, rates.num_nontarget)
    _, threshold = rates.frr_at_far(max_far)
    if not np.isfinite(threshold):
        raise InputError(
            f"{use.name}: no threshold keeps to a FAR of {100 * max_far:g} % but rejecting all, since non-target "
            "trials share the highest LLR: look at the scores"
        )
    rule = f"the lowest threshold with a FAR of at most {100 * max_far:.4g} % on held-out trials"
    if max_far > use.max_far:
        rule += f"; too few non-target trials to support {100 * use.max_far:g} %"
    return ChosenThreshold(use.name, threshold, max_far, far_support(max_far, rates.num_nontarget), rule)


def measure_thresholds(
    points: Mapping[str, ChosenThreshold], llrs: np.ndarray, bootstrap: SpeakerBootstrap
) -> dict[str, PointResult]:
    """Return FAR and FRR of each threshold on a list of trials, with 95 % intervals over speakers.

    On the trials that chose the threshold the FAR keeps to its limit by construction, and the interval takes the
    threshold as given; only another list shows its real FAR.

    Arguments
    ---------
    points : name -> chosen threshold.
    llrs : (trials,) float, log-likelihood ratios.
    bootstrap : of the same trials.

    Raises
    ------
    InputError : as ``SpeakerBootstrap.intervals``.
    """
    is_target = bootstrap.is_target
    measures = {(name, "far"): far_at(point.threshold) for name, point in points.items()}
    measures |= {(name, "frr"): frr_at(point.threshold) for name, point in points.items()}
    found = bootstrap.intervals(llrs, measures)
    return {
        name: PointResult(
            threshold=point.threshold,
            far=found[name, "far"],
            frr=found[name, "frr"],
            num_false_accepts=int(np.count_nonzero(llrs[~is_target] >= point.threshold)),
            num_false_rejects=int(np.count_nonzero(llrs[is_target] < point.threshold)),
            num_target=int(np.count_nonzero(is_target)),
            num_nontarget=int(np.count_nonzero(~is_target)),
        )
        for name, point in points.items()
    }


def in_words(name: str, result: PointResult) -> str:
    """Return a sentence on a threshold's error rates for a product owner."""
    return (
        f"{name}: false accepts: {_frequency(result.far, result.num_false_accepts, result.num_nontarget)}; "
        f"false rejects: {_frequency(result.frr, result.num_false_rejects, result.num_target)}."
    )


def _frequency(rate: Interval, num_errors: int, num_trials: int) -> str:
    """Return an error rate in words: per 100 attempts from 0.1, one in N below."""
    if not num_errors:
        times = "no attempt"
    elif rate.estimate >= 0.1:
        times = f"about {100 * rate.estimate:.0f} of 100 attempts"
    else:
        times = f"about 1 attempt in {float(f'{1.0 / rate.estimate:.2g}'):,.0f}"
    lower, upper = (per_cent(end, digits=3, unit="") for end in (rate.lower, rate.upper))
    share = per_cent(rate.estimate, digits=3)
    return f"{times} ({num_errors:,} of {num_trials:,}, {share}, 95 % interval {lower} to {upper} %)"


def _supported_far(use: Use, num_nontarget: int) -> float:
    """Return the FAR wanted, or the lowest that the rule of 30 supports; InputError where that is above the highest."""
    if far_support(use.max_far, num_nontarget) != UNSUPPORTED:
        return use.max_far
    lowest = ERRORS_FOR_30_PER_CENT / num_nontarget
    if lowest > use.highest_far:
        enough = ERRORS_FOR_ANY_CLAIM / use.max_far
        if use.highest_far > use.max_far:
            enough = ERRORS_FOR_30_PER_CENT / use.highest_far
        raise InputError(
            f"{use.name}: a FAR of {100 * use.max_far:g} % cannot be told from {num_nontarget:,} non-target trials; "
            f"choose the threshold on {enough:,.0f} or more"
        )
    return lowest
