"""A system judged: thresholds from held-out speakers, and the figures of its trials under each condition."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from voice_biometrics.errors import InputError
from voice_biometrics.figures import LlrFigures, ScoreFigures, llr_figures, score_figures
from voice_biometrics.metrics import Cost
from voice_biometrics.operating_points import CustomUse, Use
from voice_biometrics.plots_det import band_fars
from voice_biometrics.score_normalisation import check_other_speakers
from voice_biometrics.scored_trials import ScoredTrials
from voice_biometrics.thresholds import Thresholds

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
