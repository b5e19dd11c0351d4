"""Log-likelihood ratios of the very trials that a calibration is fitted on, by cross-validation over speakers.

The speakers are dealt into folds. A trial of speakers of folds i and j gets its ratio from a calibration that was
fitted on the trials among the speakers of the other folds, so neither of its speakers had a say in it.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from voice_biometrics.calibration import fit_calibration_holding_down
from voice_biometrics.errors import InputError

NUM_FOLDS = 5
FEWEST_SPEAKERS = 8  # 5 folds of fewer leave too few speakers beside two of them


def cross_validated_llrs(
    scores: np.ndarray,
    is_target: np.ndarray,
    enrol_speaker: np.ndarray,
    test_speaker: np.ndarray,
    quality: Mapping[str, np.ndarray] | None = None,
    *,
    prior: float = 0.5,
    seed: int,
) -> np.ndarray:
    """Return the log-likelihood ratio of each trial, (trials,) float64, from calibrations of other speakers.

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
    fold_of = np.random.default_rng(seed).permutation(len(speakers)) % NUM_FOLDS
    enrol_fold, test_fold = fold_of[codes].reshape(2, -1)
    scores, is_target = np.asarray(scores), np.asarray(is_target)
    quality = {name: np.asarray(column) for name, column in (quality or {}).items()}
    llrs = np.empty(scores.shape)
    for first, second in itertools.combinations_with_replacement(range(NUM_FOLDS), 2):
        of_these = ((enrol_fold == first) & (test_fold == second)) | ((enrol_fold == second) & (test_fold == first))
        if not of_these.any():
            continue
        of_others = ~np.isin(enrol_fold, (first, second)) & ~np.isin(test_fold, (first, second))
        calibration = fit_calibration_holding_down(
            scores[of_others], is_target[of_others], prior, _rows(quality, of_others)
        )
        llrs[of_these] = calibration.llrs(scores[of_these], _rows(quality, of_these))
    return llrs


def _rows(quality: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the chosen trials' quality measures."""
    return {name: column[chosen] for name, column in quality.items()}
