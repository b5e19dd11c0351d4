"""Log-likelihood ratios of the very speakers that a calibration is fitted on, by cross-validation over speakers.

The speakers are dealt into folds. A trial of speakers of folds i and j gets its ratio from a calibration that was
fitted on the trials among the speakers of the other folds, so neither of its speakers had a say in it.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.calibration import fit_calibration_holding_down

NUM_FOLDS = 5
FEWEST_SPEAKERS = 8  # 5 folds of fewer leave too few speakers beside two of them


class FoldedCalibration:
    """Calibrations fitted on a list of trials less one fold of speakers or two, for the trials of these folds."""

    def __init__(
        self,
        scores: np.ndarray,
        is_target: np.ndarray,
        enrol_speaker: np.ndarray,
        test_speaker: np.ndarray,
        quality: Mapping[str, np.ndarray] | None = None,
        *,
        prior: float = 0.5,
        seed: int,
    ) -> None:
        """Deal the speakers and fit.

        Arguments
        ---------
        scores, is_target, quality, prior : as ``calibration.fit_calibration``; (trials,) each.
        enrol_speaker, test_speaker : (trials,) speaker of either side: text or numbers.
        seed : of the dealing.

        Raises
        ------
        InputError : fewer than 8 speakers; or as ``fit_calibration``, for the trials that one fold or two leave over.
        """
        codes, speakers = pd.factorize(np.concatenate([enrol_speaker, test_speaker]), sort=True)
        if len(speakers) < FEWEST_SPEAKERS:
            raise InputError(
                f"{len(speakers)} speakers: calibrating on some and judging on others needs {FEWEST_SPEAKERS} or more; "
                "give the scores of other speakers to calibrate on"
            )
        scores, is_target = np.asarray(scores), np.asarray(is_target)
        fold_of = np.random.default_rng(seed).permutation(len(speakers)) % NUM_FOLDS
        enrol_fold, test_fold = fold_of[codes].reshape(2, -1)
        self.folds = np.sort(np.stack([enrol_fold, test_fold]).astype(np.int8), axis=0)  # (2, trials)
        self.calibrations = {}
        for pair in itertools.combinations_with_replacement(range(NUM_FOLDS), 2):
            others = ~np.isin(self.folds, pair).any(axis=0)
            self.calibrations[pair] = fit_calibration_holding_down(
                scores[others], is_target[others], prior, _rows(quality, others)
            )

    def llrs(self, scores: np.ndarray, quality: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Return the log-likelihood ratio of each trial, (trials,) float64.

        ``scores`` and ``quality``, (trials,) each, belong to the trials that were fitted on, in their order: the very
        scores, or those of another condition.
        """
        scores = np.asarray(scores)
        llrs = np.empty(scores.shape)
        for (first, second), calibration in self.calibrations.items():
            of_these = (self.folds[0] == first) & (self.folds[1] == second)
            llrs[of_these] = calibration.llrs(scores[of_these], _rows(quality, of_these))
        return llrs


def _rows(quality: Mapping[str, np.ndarray] | None, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the chosen trials' quality measures."""
    return {name: np.asarray(column)[chosen] for name, column in (quality or {}).items()}
