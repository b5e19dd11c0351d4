"""Cross-validated ratios: honest about a speaker that no other resembles, equal to the fit where all are alike."""

import numpy as np
import pytest

from tests.unit.metrics.test_calibration import trials_of_speakers
from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.calibration import fit_calibration, fit_calibration_holding_down
from voice_biometrics.metrics.calibration_folds import FoldedCalibration
from voice_biometrics.metrics.llr import cllr


def cross_validated_llrs(scores, is_target, enrol, test, quality=None, *, seed):
    return FoldedCalibration(scores, is_target, enrol, test, quality, seed=seed).llrs(scores, quality)


def test_ratios_are_close_to_those_of_one_fit_where_speakers_are_alike():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=40)
    llrs = cross_validated_llrs(scores, is_target, enrol, test, seed=0)
    fitted = fit_calibration(scores, is_target).llrs(scores)
    assert cllr(llrs, is_target) == pytest.approx(cllr(fitted, is_target), rel=0.1)
    assert cllr(llrs, is_target) > cllr(fitted, is_target)  # judged on speakers that it was not fitted on


def test_a_trial_has_no_say_in_its_own_ratio():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=20)
    before = cross_validated_llrs(scores, is_target, enrol, test, seed=3)
    own = (enrol == "s00") | (test == "s00")
    odd = np.where(own & is_target, -50.0, scores)
    after = cross_validated_llrs(odd, is_target, enrol, test, seed=3)
    same_score = own & ~is_target  # the scores of these did not change, and who calibrates them neither
    np.testing.assert_array_equal(after[same_score], before[same_score])
    assert not np.allclose(after[~own], before[~own])  # the others' calibration saw the odd trials


def test_other_scores_of_the_same_trials_are_calibrated_by_the_same_fits():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=12)
    folded = FoldedCalibration(scores, is_target, enrol, test, seed=1)
    shift = folded.llrs(scores + 1.0) - folded.llrs(scores)
    slopes = {calibration.slope for calibration in folded.calibrations.values()}
    assert np.isin(shift.round(9), np.round(list(slopes), 9)).all() and len(set(shift.round(9))) > 10


def test_exchanging_enrolment_and_test_changes_nothing():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=12)
    quality = {"length": np.arange(scores.size) % 7.0}
    one = cross_validated_llrs(scores, is_target, enrol, test, quality, seed=1)
    other = cross_validated_llrs(scores, is_target, test, enrol, quality, seed=1)
    np.testing.assert_array_equal(one, other)


def test_separable_trials_get_finite_ratios_by_a_slope_held_down():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=10)
    scores = np.where(is_target, 1.0, 0.0) + 0.01 * np.tanh(scores)
    llrs = cross_validated_llrs(scores, is_target, enrol, test, seed=0)
    assert np.isfinite(llrs).all() and llrs[is_target].min() > 0 > llrs[~is_target].max()
    assert fit_calibration_holding_down(scores, is_target).ridge > 0


def test_too_few_speakers_are_told():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=7)
    with pytest.raises(InputError, match="7 speakers: .* needs 8 or more"):
        FoldedCalibration(scores, is_target, enrol, test, seed=0)
