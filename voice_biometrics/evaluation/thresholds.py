"""Calibration and decision thresholds of a system, fitted on held-out speakers.

``calibration.json`` in the run folder: ``calibration`` (score to log-likelihood ratio), ``operating_points`` (a
threshold for each use, with its error rates on held-out trials), ``not_chosen`` (uses that the trials do not support,
with the reason) and ``from`` (the origin of the trials).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json
from voice_biometrics.metrics.calibration import Calibration, FoldedCalibration, fit_calibration
from voice_biometrics.metrics.operating_points import (
    ChosenThreshold,
    CustomUse,
    PointResult,
    Use,
    choose_threshold,
    measure_thresholds,
)
from voice_biometrics.scoring.scored_trials import ScoredTrials


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Calibration and thresholds, and their error rates on the held-out trials of the fit.

    calibration : fitted on all held-out trials.
    folds : the same without some of the speakers, to calibrate trials of these very speakers.
    points : use -> threshold; refused : use -> why it has none.
    held_out : use -> FAR and FRR on the held-out trials. A FAR limit is met there by construction; only other trials
        show the real FAR.
    """

    calibration: Calibration
    folds: FoldedCalibration
    points: dict[str, ChosenThreshold]
    refused: dict[str, str]
    held_out: dict[str, PointResult]

    @classmethod
    def from_held_out(
        cls, held_out: ScoredTrials, uses: Sequence[Use | CustomUse], with_durations: bool
    ) -> "Thresholds":
        """Calibrate on held-out trials and choose a threshold for each use.

        Arguments
        ---------
        held_out : trials of speakers in neither training nor test; their speakers must be known.
        uses : uses to choose thresholds for.
        with_durations : calibrate with the durations of both sides beside the score.

        Raises
        ------
        InputError : as ``FoldedCalibration`` and ``SpeakerBootstrap``.
        """
        scores, bootstrap = held_out.scores, held_out.bootstrap
        quality = held_out.log_durations() if with_durations else None
        calibration = fit_calibration(scores, bootstrap.is_target, quality=quality)
        speakers = bootstrap.enrol_speaker, bootstrap.test_speaker
        folds = FoldedCalibration(scores, bootstrap.is_target, *speakers, quality)
        llrs = folds.llrs(scores, quality)
        points, refused = {}, {}
        for use in uses:
            try:
                points[use.name] = choose_threshold(use, llrs, bootstrap.is_target)
            except InputError as error:
                refused[use.name] = str(error)
        return cls(calibration, folds, points, refused, measure_thresholds(points, llrs, bootstrap))

    def llrs(self, trials: ScoredTrials, are_held_out: bool) -> np.ndarray:
        """Return log-likelihood ratios, (trials,).

        ``are_held_out`` : the trials are those of the fit, under whatever condition, so each trial is calibrated on
        other speakers.
        """
        quality = trials.log_durations() if self.calibration.quality_slopes else None
        return (self.folds if are_held_out else self.calibration).llrs(trials.scores, quality)

    def score_at(self, use: str) -> float | None:
        """Return the threshold of a use as a score; None where the durations decide too."""
        return None if self.calibration.quality_slopes else self.calibration.score_at(self.points[use].threshold)

    def write(self, path: Path, origin: dict) -> None:
        """Write calibration.json; ``origin`` describes the trials of the fit."""
        points = {
            use: asdict(point) | {"score": self.score_at(use), "held_out": asdict(self.held_out[use])}
            for use, point in self.points.items()
        }
        content = {"calibration": asdict(self.calibration), "operating_points": points, "not_chosen": self.refused}
        write_json(content | {"from": origin}, path)
