"""A system judged: thresholds from held-out speakers, and the figures of its trials under each condition.

The figures of one list of scored trials, with 95 % intervals over speakers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.metrics.bootstrap import Interval, band_fars, bootstrap_intervals
from voice_biometrics.metrics.error_rates import (
    UNSUPPORTED,
    Cost,
    ErrorRates,
    error_rates,
    summary,
    supported_frr_at_far,
)
from voice_biometrics.metrics.llr import llr_summary, pav_bins
from voice_biometrics.metrics.operating_points import (
    CustomUse,
    OperatingPoint,
    PointResult,
    Use,
    measure_operating_points,
)
from voice_biometrics.metrics.resampling import Cllr, Eer, FrrAtFar, Measure, MinDcf, act_dcf_at
from voice_biometrics.scoring.as_norm import check_other_speakers
from voice_biometrics.scoring.scored_trials import ScoredTrials

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


MOST_CURVES = 5  # lists of trials whose DET curves are drawn, with intervals, which take some seconds each


@dataclass(frozen=True, eq=False)
class Judged:
    """A list of trials with its figures.

    by_llr, llrs : what its log-likelihood ratios, (trials,), say; None where there is no calibration.
    """

    trials: ScoredTrials
    by_score: ScoreFigures
    by_llr: LlrFigures | None
    llrs: np.ndarray | None

    @property
    def name(self) -> str:
        """What was scored: "clean", or a condition."""
        return self.trials.name

    @property
    def summary(self) -> dict:
        """All figures, ready for JSON."""
        return self.by_score.summary | (self.by_llr.summary if self.by_llr else {})


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All figures of one system.

    lists : the trials, clean ones first, then under each condition.
    thresholds : calibration and operating points; None, with ``not_calibrated`` saying why, where there are none.
    on_itself : the thresholds come from the clean trials themselves, by cross-validation over their speakers.
    """

    lists: list[Judged]
    thresholds: Thresholds | None
    on_itself: bool
    not_calibrated: str = ""

    @property
    def clean(self) -> Judged:
        """The trials as they are."""
        return self.lists[0]

    def to_dict(self) -> dict:
        """Return the figures for metrics.json."""
        content = self.clean.summary | {"conditions": {judged.name: judged.summary for judged in self.lists[1:]}}
        if self.thresholds is None:
            return content | {"not_calibrated": self.not_calibrated}
        content["calibration"] = self.thresholds.calibration.to_dict() | {"on_these_trials": self.on_itself}
        content["held_out_operating_points"] = {use: asdict(result) for use, result in self.thresholds.held_out.items()}
        return content | {"no_operating_point": self.thresholds.refused}


def evaluate(
    lists: Sequence[ScoredTrials],
    held_out: ScoredTrials | None,
    uses: Sequence[Use | CustomUse],
    costs: Sequence[Cost],
    with_durations: bool = False,
) -> Evaluation:
    """Judge a system.

    Arguments
    ---------
    lists : its trials, clean ones first, then the same trials under each condition.
    held_out : trials of other speakers, for calibration and thresholds; None takes the clean trials themselves, each
        judged by what other speakers' trials say.
    uses : what thresholds are wanted for. costs : for minDCF and actDCF.
    with_durations : let the calibration use durations beside the score.

    Raises
    ------
    InputError : a speaker is held out and in the trials; or as ``figures.score_figures``.
    """
    thresholds, why_not = _thresholds(lists[0], held_out, uses, with_durations)
    fars = band_fars(int(np.count_nonzero(~lists[0].is_target)))
    judged = []
    for number, trials in enumerate(lists):
        by_score, by_llr, llrs = score_figures(trials, costs, fars if number < MOST_CURVES else ()), None, None
        if thresholds:
            llrs = thresholds.llrs(trials, are_held_out=held_out is None)
            by_llr = llr_figures(trials, llrs, thresholds.points, costs)
        judged.append(Judged(trials, by_score, by_llr, llrs))
    return Evaluation(judged, thresholds, on_itself=held_out is None, not_calibrated=why_not)


def _thresholds(
    clean: ScoredTrials, held_out: ScoredTrials | None, uses: Sequence[Use | CustomUse], with_durations: bool
) -> tuple[Thresholds | None, str]:
    """Return the thresholds, or None and why there are none."""
    if held_out is not None:
        of_trials = (np.unique(np.concatenate(trials.speakers())) for trials in (held_out, clean))
        check_other_speakers("the held-out trials", *of_trials)
    try:
        return Thresholds.from_held_out(held_out or clean, uses, with_durations), ""
    except InputError as error:
        return None, str(error)
