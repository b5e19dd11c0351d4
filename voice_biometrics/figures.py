"""The figures of one list of scored trials, with 95 % intervals over speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from voice_biometrics.far_support import UNSUPPORTED, supported_frr_at_far
from voice_biometrics.intervals import Interval, bootstrap_intervals
from voice_biometrics.llr_metrics import llr_summary, pav_bins
from voice_biometrics.measures import Cllr, Eer, FrrAtFar, Measure, MinDcf, act_dcf_at
from voice_biometrics.metrics import Cost, ErrorRates, error_rates, summary
from voice_biometrics.operating_points import OperatingPoint, PointResult, measure_operating_points
from voice_biometrics.scored_trials import ScoredTrials

SEED = 0  # of the resamples, for all lists alike, so that lists of the same speakers compare


@dataclass(frozen=True, eq=False)
class ScoreFigures:
    """What can be said of scores without a calibration.

    summary : ready for JSON; see ``score_figures``. rates : every operating point.
    eer, frr_at : the EER, and FAR -> the FRR there, with intervals.
    """

    summary: dict
    rates: ErrorRates
    eer: Interval
    frr_at: dict[float, Interval]


@dataclass(frozen=True, eq=False)
class LlrFigures:
    """What can be said of log-likelihood ratios. ``summary`` is ready for JSON; ``points`` : use -> FAR and FRR."""

    summary: dict
    points: dict[str, PointResult]


def score_figures(trials: ScoredTrials, costs: Sequence[Cost], band_fars: Sequence[float] = ()) -> ScoreFigures:
    """Return the figures that need no calibration; all rates are fractions.

    The summary holds ``metrics.summary``; ``rocch_eer`` and ``min_cllr``; ``frr_at_far``, an entry for each usual FAR
    with ``support`` (what the number of trials makes of it) and ``remark``; ``interval`` ([lower, upper], 95 %) beside
    the EER, each minDCF and each FRR; and ``num_speakers``. ``frr_at`` has the intervals at ``band_fars``.
    """
    rates = error_rates(trials.scores, trials.is_target)
    bins = pav_bins(rates)
    figures = summary(trials.scores, trials.is_target, costs)
    figures |= {"rocch_eer": bins.equal_error_rate(), "min_cllr": bins.min_cllr()}
    at_fars = supported_frr_at_far(rates)
    figures["frr_at_far"] = [asdict(at) | {"remark": at.remark()} for at in at_fars]
    usual_fars = [at.max_far for at in at_fars if at.support != UNSUPPORTED]
    measures: dict[object, Measure] = {"eer": Eer()}
    measures |= {cost: MinDcf(*cost) for cost in costs}
    measures |= {("far", far): FrrAtFar(far) for far in (*usual_fars, *band_fars)}
    found = _intervals(trials, trials.scores, measures)
    figures |= {"interval": _ends(found["eer"]), "num_speakers": found["eer"].num_speakers}
    for cost, entry in zip(costs, figures["min_dcf"], strict=True):
        entry["interval"] = _ends(found[cost])
    for entry in figures["frr_at_far"]:
        if entry["max_far"] in usual_fars:
            entry["interval"] = _ends(found["far", entry["max_far"]])
    return ScoreFigures(figures, rates, found["eer"], {far: found["far", far] for far in band_fars})


def llr_figures(
    trials: ScoredTrials, llrs: np.ndarray, points: Mapping[str, OperatingPoint], costs: Sequence[Cost]
) -> LlrFigures:
    """Return the figures of calibrated scores, (trials,) log-likelihood ratios.

    The summary holds ``act_dcf`` as ``llr_metrics.llr_summary``, with an ``interval`` each; ``cllr`` and
    ``cllr_interval``; ``operating_points``: use -> threshold, FAR and FRR with intervals and counts.
    """
    ratios = llr_summary(llrs, trials.is_target, costs)
    figures = {"act_dcf": ratios["act_dcf"], "cllr": ratios["cllr"]}  # minC_llr and the hull's EER are the scores'
    measures: dict[object, Measure] = {cost: act_dcf_at(*cost) for cost in costs}
    found = _intervals(trials, llrs, measures | {"cllr": Cllr()})
    figures["cllr_interval"] = _ends(found["cllr"])
    for cost, entry in zip(costs, figures["act_dcf"], strict=True):
        entry["interval"] = _ends(found[cost])
    measured = {}
    if points:
        measured = measure_operating_points(points, llrs, trials.is_target, *trials.speakers(), seed=SEED)
    figures["operating_points"] = {use: asdict(result) for use, result in measured.items()}
    return LlrFigures(figures, measured)


def _intervals(trials: ScoredTrials, values: np.ndarray, measures: Mapping[object, Measure]) -> dict[object, Interval]:
    """Return the intervals of several measures of one list."""
    return bootstrap_intervals(values, trials.is_target, *trials.speakers(), measures, seed=SEED)


def _ends(interval: Interval) -> list[float]:
    """Return [lower, upper]."""
    return [interval.lower, interval.upper]
