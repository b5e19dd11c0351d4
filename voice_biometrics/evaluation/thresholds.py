"""What a system's decisions rest on: its calibration and a threshold for each stated use, from held-out speakers.

``calibration.json`` in the run folder: ``calibration`` (score to log-likelihood ratio), ``operating_points`` (a
threshold for each use, with the error rates on held-out trials), ``not_chosen`` (uses that the trials do not support,
and why) and ``from`` (what all this was fitted on).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json
from voice_biometrics.metrics.calibration import Calibration, fit_calibration_holding_down
from voice_biometrics.metrics.calibration_folds import FoldedCalibration
from voice_biometrics.metrics.operating_points import (
    CustomUse,
    OperatingPoint,
    PointResult,
    Use,
    choose_operating_point,
    measure_operating_points,
)
from voice_biometrics.scoring.scored_trials import ScoredTrials

SEED = 0  # of folds and resamples, for all systems alike


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Calibration and operating points, and what they did on the held-out trials they come from.

    calibration : fitted on all held-out trials.
    folds : the same less some of its speakers, to judge these very speakers by.
    points : use -> operating point; refused : use -> why it has none.
    held_out : use -> FAR and FRR on the held-out trials. The FAR of a use that limits it keeps to the limit there by
        construction; what it is worth, other trials tell.
    """

    calibration: Calibration
    folds: FoldedCalibration
    points: dict[str, OperatingPoint]
    refused: dict[str, str]
    held_out: dict[str, PointResult]

    @classmethod
    def from_held_out(
        cls, held_out: ScoredTrials, uses: Sequence[Use | CustomUse], with_durations: bool
    ) -> "Thresholds":
        """Calibrate on held-out trials and choose a threshold for each use.

        Arguments
        ---------
        held_out : trials of speakers that neither training nor the test has seen; their speakers must be known.
        uses : what thresholds are wanted for.
        with_durations : let the calibration use the durations of both sides beside the score.

        Raises
        ------
        InputError : as ``calibration_folds.FoldedCalibration`` and ``intervals.bootstrap_intervals``.
        """
        scores, is_target, speakers = held_out.scores, held_out.is_target, held_out.speakers()
        quality = held_out.log_durations() if with_durations else None
        calibration = fit_calibration_holding_down(scores, is_target, quality=quality)
        folds = FoldedCalibration(scores, is_target, *speakers, quality, seed=SEED)
        llrs = folds.llrs(scores, quality)
        points, refused = {}, {}
        for use in uses:
            try:
                points[use.name] = choose_operating_point(use, llrs, is_target)
            except InputError as error:
                refused[use.name] = str(error)
        measured = measure_operating_points(points, llrs, is_target, *speakers, seed=SEED) if points else {}
        return cls(calibration, folds, points, refused, measured)

    def llrs(self, trials: ScoredTrials, are_held_out: bool) -> np.ndarray:
        """Return log-likelihood ratios, (trials,).

        ``are_held_out`` : the trials are those that all this was fitted on, under whatever condition, so that the
        calibration of a trial must come from other speakers.
        """
        quality = trials.log_durations() if self.calibration.quality_slopes else None
        return (self.folds if are_held_out else self.calibration).llrs(trials.scores, quality)

    def score_at(self, use: str) -> float | None:
        """Return the threshold of a use as a score; None where durations have a say as well."""
        return None if self.calibration.quality_slopes else self.calibration.score_at(self.points[use].threshold)

    def write(self, path: Path, origin: dict) -> None:
        """Write calibration.json; ``origin`` says what it was fitted on."""
        points = {
            use: asdict(point) | {"score": self.score_at(use), "held_out": asdict(self.held_out[use])}
            for use, point in self.points.items()
        }
        content = {"calibration": self.calibration.to_dict(), "operating_points": points, "not_chosen": self.refused}
        write_json(content | {"from": origin}, path)
