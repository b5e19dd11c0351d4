"""All figures of a system: error rates of its trials under each condition, with 95 % intervals over speakers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.thresholds import Thresholds
from voice_biometrics.metrics.bootstrap import Cllr, Eer, FrrAtFar, Interval, MinDcf, act_dcf_at, band_fars
from voice_biometrics.metrics.error_rates import USUAL_FARS, Cost, ErrorRates, SupportedFrr, dcf_entry
from voice_biometrics.metrics.llr import PavBins, bayes_threshold, cllr
from voice_biometrics.metrics.operating_points import CustomUse, PointResult, Use, measure_thresholds
from voice_biometrics.scoring.as_norm import check_other_speakers
from voice_biometrics.scoring.scored_trials import ScoredTrials

MOST_CURVES = 5  # lists of trials with a band of intervals around the DET curve, which takes some seconds each


@dataclass(frozen=True, eq=False)
class Judged:
    """A list of trials with its figures; all rates are fractions.

    summary : all figures, ready for JSON; see ``judge``. eer : with its interval.
    frr_at : FAR -> FRR there, with its interval. llrs : (trials,) or None. points : use -> FAR, FRR.
    """

    trials: ScoredTrials
    summary: dict
    eer: Interval
    frr_at: dict[float, Interval]
    llrs: np.ndarray | None = None
    points: dict[str, PointResult] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return "clean", or the name of the condition."""
        return self.trials.name

    @property
    def rates(self) -> ErrorRates:
        """Return every operating point of the scores."""
        return self.trials.rates


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All figures of one system.

    lists : the trials, clean ones first, then under each condition.
    thresholds : calibration and thresholds; None, with the reason in ``not_calibrated``, where there are none.
    on_itself : the thresholds come from the clean trials themselves, by cross-validation over their speakers.
    """

    lists: list[Judged]
    thresholds: Thresholds | None
    on_itself: bool
    not_calibrated: str = ""

    @property
    def clean(self) -> Judged:
        """Return the unaltered trials."""
        return self.lists[0]

    def to_dict(self) -> dict:
        """Return the figures for metrics.json."""
        content = self.clean.summary | {"conditions": {judged.name: judged.summary for judged in self.lists[1:]}}
        if self.thresholds is None:
            return content | {"not_calibrated": self.not_calibrated}
        content["calibration"] = asdict(self.thresholds.calibration) | {"on_these_trials": self.on_itself}
        content["held_out_operating_points"] = {use: asdict(result) for use, result in self.thresholds.held_out.items()}
        return content | {"no_operating_point": self.thresholds.refused}


def evaluate(
    lists: Sequence[ScoredTrials],
    held_out: ScoredTrials | None,
    uses: Sequence[Use | CustomUse],
    costs: Sequence[Cost],
    with_durations: bool = False,
) -> Evaluation:
    """Evaluate a system.

    Arguments
    ---------
    lists : its trials, clean ones first, then the same trials under each condition.
    held_out : trials of other speakers, for calibration and thresholds; None takes the clean trials themselves, each
        calibrated on trials of other speakers.
    uses : uses to choose thresholds for. costs : for minDCF and actDCF.
    with_durations : calibrate with the durations beside the score.

    Raises
    ------
    InputError : a speaker is held out and in the trials; or as ``judge``.
    """
    thresholds, why_not = _thresholds(lists[0], held_out, uses, with_durations)
    fars = band_fars(lists[0].rates.num_nontarget)
    judged = []
    for number, trials in enumerate(lists):
        found = judge(trials, costs, fars if number < MOST_CURVES else ())
        judged.append(with_llrs(found, thresholds, costs, are_held_out=held_out is None) if thresholds else found)
    return Evaluation(judged, thresholds, on_itself=held_out is None, not_calibrated=why_not)


def judge(trials: ScoredTrials, costs: Sequence[Cost], band_fars: Sequence[float] = ()) -> Judged:
    """Return the figures that need no calibration.

    The summary holds that of ``ErrorRates``; ``rocch_eer`` and ``min_cllr``; ``frr_at_far``, one per usual FAR with
    ``support`` and ``remark``; ``interval`` ([lower, upper], 95 %) beside the EER, each minDCF and each FRR; and
    ``num_speakers``. ``frr_at`` has the intervals at ``band_fars``. Raises InputError as ``SpeakerBootstrap``.
    """
    bins = PavBins.of(trials.rates)
    at_fars = [SupportedFrr.of(trials.rates, far) for far in USUAL_FARS]
    measures = {"eer": Eer()} | {cost: MinDcf(*cost) for cost in costs}
    measures |= {("far", far): FrrAtFar(far) for far in (*USUAL_FARS, *band_fars)}
    found = trials.bootstrap.intervals(trials.scores, measures)
    figures = trials.rates.summary(costs)
    figures |= {"rocch_eer": bins.equal_error_rate(), "min_cllr": bins.min_cllr()}
    figures["frr_at_far"] = [asdict(at) | {"remark": at.remark()} for at in at_fars]
    figures |= {"interval": _ends(found["eer"]), "num_speakers": found["eer"].num_speakers}
    for cost, entry in zip(costs, figures["min_dcf"], strict=True):
        entry["interval"] = _ends(found[cost])
    for entry in figures["frr_at_far"]:
        if entry["frr"] is not None:
            entry["interval"] = _ends(found["far", entry["max_far"]])
    return Judged(trials, figures, found["eer"], {far: found["far", far] for far in band_fars})


def with_llrs(judged: Judged, thresholds: Thresholds, costs: Sequence[Cost], are_held_out: bool) -> Judged:
    """Add the figures of the log-likelihood ratios; ``are_held_out`` as in ``Thresholds.llrs``.

    These are ``act_dcf``, one ``dcf_entry`` with its ``interval`` per cost; ``cllr`` (bits) and ``cllr_interval``;
    ``operating_points``: use -> threshold, FAR and FRR with intervals and counts.
    """
    trials = judged.trials
    llrs = thresholds.llrs(trials, are_held_out)
    found = trials.bootstrap.intervals(llrs, {cost: act_dcf_at(*cost) for cost in costs} | {"cllr": Cllr()})
    act_dcf = [
        dcf_entry(cost, found[cost].estimate, bayes_threshold(*cost)) | {"interval": _ends(found[cost])}
        for cost in costs
    ]
    points = measure_thresholds(thresholds.points, llrs, trials.bootstrap)
    figures = {"act_dcf": act_dcf, "cllr": cllr(llrs, trials.is_target), "cllr_interval": _ends(found["cllr"])}
    figures["operating_points"] = {use: asdict(result) for use, result in points.items()}
    return replace(judged, summary=judged.summary | figures, llrs=llrs, points=points)


def _ends(interval: Interval) -> list[float]:
    return [interval.lower, interval.upper]


def _thresholds(
    clean: ScoredTrials, held_out: ScoredTrials | None, uses: Sequence[Use | CustomUse], with_durations: bool
) -> tuple[Thresholds | None, str]:
    """Return the thresholds; or None, and why there are none."""
    if held_out is not None:
        speakers = (np.unique(np.concatenate(trials.of_sides("spk_id"))) for trials in (held_out, clean))
        check_other_speakers("the held-out trials", *speakers)
    _ = (held_out or clean).bootstrap  # raises where labels contradict the speakers
    try:
        return Thresholds.from_held_out(held_out or clean, uses, with_durations), ""
    except InputError as error:
        return None, str(error)
