"""The threshold for a stated use, chosen on held-out trials, and what it does there and on a test.

Thresholds are on the scale of log-likelihood ratios (``voice_biometrics.metrics.calibration``). Three uses:

- ``smart_speaker``: convenience first, one stranger in a hundred may be let in (FAR 1 %);
- ``door``: safety first, one in ten thousand (FAR 0.01 %), or the lowest FAR that the trials support;
- ``custom``: the costs of both errors and how often the speaker is who he claims to be; the threshold then follows from
  the costs alone, as LLRs have a meaning of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import Interval, bootstrap_intervals
from voice_biometrics.metrics.error_rates import (
    ERRORS_FOR_30_PER_CENT,
    ERRORS_FOR_ANY_CLAIM,
    UNSUPPORTED,
    checked_trials,
    error_rates,
    far_support,
)
from voice_biometrics.metrics.llr import bayes_threshold
from voice_biometrics.metrics.resampling import far_at, frr_at


@dataclass(frozen=True)
class Use:
    """What a threshold is for: a limit on the FAR.

    max_far : the FAR wanted, a fraction. highest_far : what to settle for where the trials do not support it.
    """

    name: str
    max_far: float
    highest_far: float


@dataclass(frozen=True)
class CustomUse:
    """What a threshold is for: the least cost. p_target : prior of a target; c_miss, c_fa : costs of the errors."""

    p_target: float
    c_miss: float
    c_fa: float
    name: str = "custom"


SMART_SPEAKER = Use("smart_speaker", max_far=0.01, highest_far=0.01)
DOOR = Use("door", max_far=0.0001, highest_far=0.01)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and how it came about.

    use : name of the use. threshold : accept from this LLR on.
    max_far : the limit on the FAR of the held-out trials that it keeps to; None where costs decided.
    support : what the number of non-target trials makes of that limit ("supported" or "coarse"); None likewise.
    rule : in words, how it was chosen.
    """

    use: str
    threshold: float
    max_far: float | None
    support: str | None
    rule: str


@dataclass(frozen=True)
class PointResult:
    """What a threshold does on a list of trials: FAR and FRR with intervals, and the counts behind them."""

    threshold: float
    far: Interval
    frr: Interval
    num_false_accepts: int
    num_false_rejects: int
    num_target: int
    num_nontarget: int


def choose_operating_point(use: Use | CustomUse, llrs: np.ndarray, is_target: np.ndarray) -> OperatingPoint:
    """Choose the threshold of a use on held-out trials, never on the test.

    Arguments
    ---------
    use : ``SMART_SPEAKER``, ``DOOR`` or a ``CustomUse``.
    llrs : (trials,) float, log-likelihood ratios of trials of held-out speakers.
    is_target : (trials,) bool, or 0 and 1.

    Raises
    ------
    InputError : as ``metrics.error_rates``; a prior or a cost is out of its range; too few non-target trials for the
        use; or scores so tied that only rejecting all keeps to the FAR.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    if isinstance(use, CustomUse):
        costs = {"p_target": use.p_target, "c_miss": use.c_miss, "c_fa": use.c_fa}
        rule = f"the Bayes threshold for p_target {use.p_target:g}, c_miss {use.c_miss:g}, c_fa {use.c_fa:g}"
        return OperatingPoint(use.name, bayes_threshold(**costs), max_far=None, support=None, rule=rule)
    max_far = _supported_far(use, int(np.count_nonzero(~is_target)))
    _, threshold = error_rates(llrs, is_target).frr_at_far(max_far)
    if not np.isfinite(threshold):
        raise InputError(
            f"{use.name}: no threshold keeps to a FAR of {100 * max_far:g} % but rejecting all, since non-target "
            "trials share the highest LLR: look at the scores"
        )
    support = far_support(max_far, int(np.count_nonzero(~is_target)))
    rule = f"the lowest threshold with a FAR of at most {100 * max_far:.4g} % on held-out trials"
    if max_far > use.max_far:
        rule += f"; too few non-target trials to support {100 * use.max_far:g} %"
    return OperatingPoint(use.name, threshold, max_far, support, rule)


def measure_operating_points(
    points: Mapping[str, OperatingPoint],
    llrs: np.ndarray,
    is_target: np.ndarray,
    enrol_speaker: np.ndarray,
    test_speaker: np.ndarray,
    *,
    num_replicates: int = 1000,
    seed: int,
) -> dict[str, PointResult]:
    """Return FAR and FRR of each threshold on a list of trials, with 95 % intervals over speakers.

    On the trials that the threshold was chosen on, the FAR keeps to its limit by construction, and the interval takes
    the threshold as given; another list tells what it is worth.

    Arguments
    ---------
    points : name -> operating point, all measured on the same resamples.
    llrs, is_target, enrol_speaker, test_speaker, num_replicates, seed : as ``intervals.bootstrap_intervals``.

    Raises
    ------
    InputError : as ``intervals.bootstrap_intervals``.
    """
    llrs, is_target = checked_trials(llrs, is_target)
    measures = {}
    for name, point in points.items():
        measures |= {(name, "far"): far_at(point.threshold), (name, "frr"): frr_at(point.threshold)}
    found = bootstrap_intervals(
        llrs, is_target, enrol_speaker, test_speaker, measures, num_replicates=num_replicates, seed=seed
    )
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
    """Say for a product owner what a threshold does, from its counts and intervals."""
    return (
        f"{name}: strangers let in: {_how_often(result.far, result.num_false_accepts, result.num_nontarget)}; "
        f"right speakers refused: {_how_often(result.frr, result.num_false_rejects, result.num_target)}."
    )


def _how_often(rate: Interval, num_errors: int, num_trials: int) -> str:
    """Word an error rate."""
    times = _times(rate.estimate) if num_errors else "no attempt"
    return (
        f"{times} ({num_errors:,} of {num_trials:,}, {100 * rate.estimate:.3g} %, "
        f"95 % interval {100 * rate.lower:.3g} to {100 * rate.upper:.3g} %)"
    )


def _times(rate: float) -> str:
    """Word a rate above 0: of a hundred attempts where it is large, one in so many where it is small."""
    if rate >= 0.1:
        return f"about {100 * rate:.0f} of 100 attempts"
    return f"about 1 attempt in {float(f'{1.0 / rate:.2g}'):,.0f}"


def _supported_far(use: Use, num_nontarget: int) -> float:
    """Return the FAR wanted, or the lowest one that the rule of 30 supports, or raise InputError above the highest."""
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
