"""Calibration recovers known ratios, is proper, and is honest about speakers it was fitted on; bad input is named."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.linear_model import LogisticRegression

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import act_dcf_at
from voice_biometrics.metrics.calibration import Calibration, FoldedCalibration, fit_calibration, log_durations
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.metrics.llr import PavBins, cllr


def cosine_like_trials(seed=0, num_target=3000, num_nontarget=20_000):
    """Scores around 0.6 and 0.1, deviation 0.15: their true LLR is affine, (0.5 / 0.0225) * (score - 0.35)."""
    rng = np.random.default_rng(seed)
    scores = np.append(rng.normal(0.6, 0.15, num_target), rng.normal(0.1, 0.15, num_nontarget))
    return scores, np.arange(scores.size) < num_target


def trials_of_speakers(seed=0, num_speakers=30):
    """LLR-like scores of all pairs of 5 utterances of each speaker, with speaker effects."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat([f"s{number:02d}" for number in range(num_speakers)], 5)
    first, second = np.triu_indices(speaker.size, 1)
    enrol, test = speaker[first], speaker[second]
    is_target = enrol == test
    effect = dict(zip(np.unique(speaker), 0.5 * rng.normal(size=num_speakers), strict=True))
    shift = np.array([effect[name] for name in enrol])
    return 2.0 * rng.normal(size=enrol.size) + np.where(is_target, 6.0, -4.0) + shift, is_target, enrol, test


def test_the_fit_recovers_a_known_affine_ratio():
    calibration = fit_calibration(*cosine_like_trials())
    assert calibration.slope == pytest.approx(0.5 / 0.0225, rel=0.06)
    assert calibration.offset == pytest.approx(-0.35 * 0.5 / 0.0225, rel=0.06)
    assert calibration.llrs([0.35]) == pytest.approx([0.0], abs=0.15)
    assert (calibration.prior, calibration.num_target, calibration.num_nontarget) == (0.5, 3000, 20_000)


def test_the_fit_is_that_of_scikit_learn_with_the_same_weights():
    scores, is_target = cosine_like_trials(num_target=200, num_nontarget=500)
    quality = np.random.default_rng(1).normal(size=700) + is_target
    calibration = fit_calibration(scores, is_target, {"loudness": quality})
    weight = np.where(is_target, 0.5 / 200, 0.5 / 500) * 1e6
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=500).fit(
        np.stack([scores, quality], axis=1), is_target, sample_weight=weight
    )
    assert calibration.slope == pytest.approx(peer.coef_[0, 0], rel=1e-4)
    assert calibration.quality_slopes["loudness"] == pytest.approx(peer.coef_[0, 1], rel=1e-4)
    assert calibration.offset == pytest.approx(peer.intercept_[0], rel=1e-4)


def test_calibrated_scores_of_other_trials_tell_the_truth():
    calibration = fit_calibration(*cosine_like_trials(seed=0))
    scores, is_target = cosine_like_trials(seed=1)
    llrs, rates = calibration.llrs(scores), error_rates(scores, is_target)
    assert cllr(scores, is_target) > 0.8  # a cosine taken for an LLR says next to nothing
    assert cllr(llrs, is_target) - PavBins.of(rates).min_cllr() < 0.01
    for p_target in (0.01, 0.05):
        measure = act_dcf_at(p_target)
        costs = measure.trial_costs(llrs, is_target)
        act_dcf = measure.weights[0] * costs[is_target].mean() + measure.weights[1] * costs[~is_target].mean()
        assert act_dcf - rates.min_dcf(p_target)[0] < 0.03


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000.0), st.floats(-100.0, 100.0))
def test_units_of_the_scores_do_not_matter(seed, unit, shift):
    scores, is_target = cosine_like_trials(seed, num_target=60, num_nontarget=200)
    scores[0], scores[-1] = -0.1, 0.9  # overlapping for certain
    llrs = fit_calibration(scores, is_target).llrs(scores)
    other = unit * scores + shift
    assert np.allclose(fit_calibration(other, is_target).llrs(other), llrs, atol=1e-4 * np.abs(llrs).max())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.8, 1.25), st.floats(-0.5, 0.5))
def test_no_other_affine_map_of_the_same_trials_has_a_lower_cllr(seed, stretch, shift):
    scores, is_target = cosine_like_trials(seed, num_target=60, num_nontarget=200)
    scores = scores.round(1)  # overlapping for certain
    scores[0], scores[-1] = -0.1, 0.9
    llrs = fit_calibration(scores, is_target).llrs(scores)
    assert cllr(llrs, is_target) <= cllr(stretch * llrs + shift, is_target) + 1e-9
    assert cllr(llrs, is_target) <= 1.0 + 1e-12


def test_durations_as_quality_measures_improve_trials_of_mixed_lengths():
    """Short utterances score lower here, whoever speaks: with the durations known, that is told apart."""
    rng = np.random.default_rng(0)
    enrol_s, test_s = rng.uniform(1.0, 20.0, (2, 23_000))
    scores, is_target = cosine_like_trials()
    scores = scores + 0.15 * np.log(np.minimum(enrol_s, test_s))
    quality = log_durations(enrol_s, test_s)
    with_durations = fit_calibration(scores, is_target, quality=quality)
    plain = fit_calibration(scores, is_target)
    gain = cllr(plain.llrs(scores), is_target) - cllr(with_durations.llrs(scores, quality), is_target)
    assert gain > 0.02
    expected = -0.15 * with_durations.slope
    assert with_durations.quality_slopes["log_shorter"] == pytest.approx(expected, rel=0.1)
    assert abs(with_durations.quality_slopes["log_longer"]) < 0.3
    swapped = with_durations.llrs(scores, log_durations(test_s, enrol_s))
    assert np.array_equal(swapped, with_durations.llrs(scores, quality))


def test_the_score_of_a_ratio_is_found_back_unless_quality_decides_too():
    calibration = Calibration(slope=4.0, offset=-1.0, prior=0.5, num_target=1, num_nontarget=1)
    assert calibration.score_at(3.0) == 1.0 and calibration.llrs([1.0]).tolist() == [3.0]
    with_quality = Calibration(4.0, -1.0, 0.5, 1, 1, quality_slopes={"loudness": 2.0})
    assert with_quality.llrs([1.0], {"loudness": [0.5]}).tolist() == [4.0]
    with pytest.raises(ValueError, match="loudness"):
        with_quality.score_at(3.0)


def test_separable_trials_are_fitted_with_slopes_held_down_and_a_free_offset():
    is_target = np.array([1, 1, 0, 0])
    loudness = {"loudness": np.array([2.0, 0.5, 0.0, -1.0])}  # only score and loudness together separate the last
    for scores, quality in (([2, 3, 0, 1], None), ([1, 2, 1, 0], None), ([2, 4, 1, 3], loudness)):
        fitted = fit_calibration(np.array(scores), is_target, quality=quality)
        assert fitted.ridge == 1e-4 and 0.0 < fitted.slope < 500.0
        posterior = 1.0 / (1.0 + np.exp(-fitted.llrs(scores, quality)))
        assert np.mean(1.0 - posterior[:2]) == pytest.approx(np.mean(posterior[2:]), abs=1e-8)
    assert fit_calibration(*cosine_like_trials(num_target=50, num_nontarget=1000)).ridge == 0.0


def test_bad_calibration_trials_are_named():
    for scores, constants, named in [
        ([0.0, 1.0, 2.0, 1.5], {}, "higher scores go with non-targets"),
        ([1.0, 1.0, 1.0, 1.0], {}, "every trial has score 1.0"),
        ([0.0, np.nan, 1.0, 2.0], {}, "trial 1 .*nan"),
        ([0.0, 1.0, 0.5, 0.7], {"quality": {"q": [1.0] * 4}}, "every trial has q 1.0"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=named):
            fit_calibration(np.array(scores), np.array([1, 1, 0, 0]), **constants)


def test_ratios_without_the_quality_that_the_fit_used_are_refused():
    calibration = Calibration(1.0, 0.0, 0.5, 1, 1, quality_slopes={"loudness": 2.0})
    for quality in (None, {"length": [1.0]}, {"loudness": [1.0], "length": [1.0]}):
        with pytest.raises(ValueError, match="loudness"):
            calibration.llrs([1.0], quality)


def test_durations_that_are_none_are_named():
    for enrol_s, test_s, named in [
        ([1.0, 0.0], [1.0, 2.0], "trial 1 .*0.0 and 2.0 s"), ([1.0], [np.nan], "trial 0 .*nan"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=named):
            log_durations(enrol_s, test_s)


def cross_validated_llrs(scores, is_target, enrol, test, quality=None):
    return FoldedCalibration(scores, is_target, enrol, test, quality).llrs(scores, quality)


def test_ratios_are_close_to_those_of_one_fit_where_speakers_are_alike():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=40)
    llrs = cross_validated_llrs(scores, is_target, enrol, test)
    fitted = fit_calibration(scores, is_target).llrs(scores)
    assert cllr(llrs, is_target) == pytest.approx(cllr(fitted, is_target), rel=0.1)
    assert cllr(llrs, is_target) > cllr(fitted, is_target)  # judged on speakers that it was not fitted on


def test_a_trial_has_no_say_in_its_own_ratio():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=20)
    before = cross_validated_llrs(scores, is_target, enrol, test)
    own = (enrol == "s00") | (test == "s00")
    odd = np.where(own & is_target, -50.0, scores)
    after = cross_validated_llrs(odd, is_target, enrol, test)
    same_score = own & ~is_target  # the scores of these did not change, and who calibrates them neither
    np.testing.assert_array_equal(after[same_score], before[same_score])
    assert not np.allclose(after[~own], before[~own])  # the others' calibration saw the odd trials


def test_other_scores_of_the_same_trials_are_calibrated_by_the_same_fits():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=12)
    folded = FoldedCalibration(scores, is_target, enrol, test)
    shift = folded.llrs(scores + 1.0) - folded.llrs(scores)
    slopes = {calibration.slope for calibration in folded.calibrations.values()}
    assert np.isin(shift.round(9), np.round(list(slopes), 9)).all() and len(set(shift.round(9))) > 10


def test_exchanging_enrolment_and_test_changes_nothing():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=12)
    quality = {"length": np.arange(scores.size) % 7.0}
    one = cross_validated_llrs(scores, is_target, enrol, test, quality)
    other = cross_validated_llrs(scores, is_target, test, enrol, quality)
    np.testing.assert_array_equal(one, other)


def test_separable_trials_get_finite_ratios_by_a_slope_held_down():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=10)
    scores = np.where(is_target, 1.0, 0.0) + 0.01 * np.tanh(scores)
    llrs = cross_validated_llrs(scores, is_target, enrol, test)
    assert np.isfinite(llrs).all() and llrs[is_target].min() > 0 > llrs[~is_target].max()


def test_too_few_speakers_are_told():
    scores, is_target, enrol, test = trials_of_speakers(num_speakers=7)
    with pytest.raises(InputError, match="7 speakers: .* needs 8 or more"):
        FoldedCalibration(scores, is_target, enrol, test)
