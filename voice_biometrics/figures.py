"""The figures of one list of scored trials, with 95 % intervals over speakers where speakers are known."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from voice_biometrics.far_support import UNSUPPORTED, supported_frr_at_far
from voice_biometrics.intervals import Interval, bootstrap_intervals
from voice_biometrics.llr_metrics import llr_summary, pav_bins
from voice_biometrics.measures import Cllr, Eer, FrrAtFar, Measure, MinDcf, act_dcf_at
from voice_biometrics.metrics import error_rates, summary
from voice_biometrics.operating_points import OperatingPoint, measure_operating_points
from voice_biometrics.scored_trials import ScoredTrials

SEED = 0  # of the resamples, for all lists alike, so that lists of the same speakers compare


def score_figures(trials: ScoredTrials, p_targets: Sequence[float]) -> dict:
    """Return the figures that need no calibration, ready for JSON; all rates are fractions.

    Keys: those of ``metrics.summary``; ``rocch_eer`` and ``min_cllr``; ``frr_at_far``, an entry for each usual FAR
    with ``support`` (what the number of trials makes of it) and ``remark``. With known speakers the EER, minDCF and FRR
    have an ``interval`` beside them: [lower, upper], 95 %, and ``num_speakers``.
    """
    rates = error_rates(trials.scores, trials.is_target)
    bins = pav_bins(rates)
    figures = summary(trials.scores, trials.is_target, p_targets)
    figures |= {"rocch_eer": bins.equal_error_rate(), "min_cllr": bins.min_cllr()}
    at_fars = supported_frr_at_far(rates)
    figures["frr_at_far"] = [asdict(at) | {"remark": at.remark()} for at in at_fars]
    if trials.utterances is None:
        return figures
    measures: dict[object, Measure] = {"eer": Eer()}
    measures |= {("dcf", p_target): MinDcf(p_target) for p_target in p_targets}
    measures |= {("far", at.max_far): FrrAtFar(at.max_far) for at in at_fars if at.support != UNSUPPORTED}
    found = _intervals(trials, trials.scores, measures)
    figures |= {"interval": _ends(found["eer"]), "num_speakers": found["eer"].num_speakers}
    for entry in figures["min_dcf"]:
        entry["interval"] = _ends(found["dcf", entry["p_target"]])
    for entry in figures["frr_at_far"]:
        if ("far", entry["max_far"]) in found:
            entry["interval"] = _ends(found["far", entry["max_far"]])
    return figures


def llr_figures(
    trials: ScoredTrials, llrs: np.ndarray, points: Mapping[str, OperatingPoint], p_targets: Sequence[float]
) -> dict:
    """Return the figures of calibrated scores, (trials,) log-likelihood ratios, ready for JSON.

    Keys: those of ``llr_metrics.llr_summary``, with an ``interval`` beside actDCF and ``cllr_interval``;
    ``operating_points``: use -> threshold, FAR and FRR with intervals and counts. Speakers must be known.
    """
    figures = llr_summary(llrs, trials.is_target, p_targets)
    measures: dict[object, Measure] = {("dcf", p_target): act_dcf_at(p_target) for p_target in p_targets}
    found = _intervals(trials, llrs, measures | {"cllr": Cllr()})
    figures["cllr_interval"] = _ends(found["cllr"])
    for entry in figures["act_dcf"]:
        entry["interval"] = _ends(found["dcf", entry["p_target"]])
    measured = {}
    if points:
        measured = measure_operating_points(points, llrs, trials.is_target, *trials.speakers(), seed=SEED)
    return figures | {"operating_points": {use: asdict(result) for use, result in measured.items()}}


def _intervals(trials: ScoredTrials, values: np.ndarray, measures: Mapping[object, Measure]) -> dict[object, Interval]:
    """Return the intervals of several measures of one list."""
    return bootstrap_intervals(values, trials.is_target, *trials.speakers(), measures, seed=SEED)


def _ends(interval: Interval) -> list[float]:
    """Return [lower, upper]."""
    return [interval.lower, interval.upper]
