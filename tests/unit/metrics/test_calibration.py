"""Calibration recovers known ratios and is proper; operating points keep to their FAR; bad input is named."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.linear_model import LogisticRegression

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.calibration import Calibration, fit_calibration, log_durations
from voice_biometrics.metrics.error_rates import error_rates, min_dcf
from voice_biometrics.metrics.llr import act_dcf, cllr, min_cllr
from voice_biometrics.metrics.operating_points import (
    DOOR,
    SMART_SPEAKER,
    CustomUse,
    OperatingPoint,
    choose_operating_point,
    in_words,
    measure_operating_points,
)


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


@pytest.mark.parametrize("prior", [0.05, 0.5])
def test_the_fit_recovers_a_known_affine_ratio(prior):
    scores, is_target = cosine_like_trials()
    calibration = fit_calibration(scores, is_target, prior)
    assert calibration.slope == pytest.approx(0.5 / 0.0225, rel=0.06)
    assert calibration.offset == pytest.approx(-0.35 * 0.5 / 0.0225, rel=0.06)
    assert calibration.llrs([0.35]) == pytest.approx([0.0], abs=0.15)
    assert (calibration.prior, calibration.num_target, calibration.num_nontarget) == (prior, 3000, 20_000)


@pytest.mark.parametrize("prior", [0.02, 0.5, 0.9])
def test_the_fit_is_that_of_scikit_learn_with_the_same_weights(prior):
    scores, is_target = cosine_like_trials(num_target=200, num_nontarget=500)
    quality = np.random.default_rng(1).normal(size=700) + is_target
    calibration = fit_calibration(scores, is_target, prior, {"loudness": quality})
    weight = np.where(is_target, prior / 200, (1.0 - prior) / 500) * 1e6
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=500).fit(
        np.stack([scores, quality], axis=1), is_target, sample_weight=weight
    )
    offset = peer.intercept_[0] - np.log(prior / (1.0 - prior))
    assert calibration.slope == pytest.approx(peer.coef_[0, 0], rel=1e-4)
    assert calibration.quality_slopes["loudness"] == pytest.approx(peer.coef_[0, 1], rel=1e-4)
    assert calibration.offset == pytest.approx(offset, rel=1e-4)


def test_calibrated_scores_of_other_trials_tell_the_truth():
    calibration = fit_calibration(*cosine_like_trials(seed=0))
    scores, is_target = cosine_like_trials(seed=1)
    llrs = calibration.llrs(scores)
    assert cllr(scores, is_target) > 0.8  # a cosine taken for an LLR says next to nothing
    assert cllr(llrs, is_target) - min_cllr(llrs, is_target) < 0.01
    for p_target in (0.01, 0.05):
        assert act_dcf(scores, is_target, p_target) == 1.0
        assert act_dcf(llrs, is_target, p_target) - min_dcf(llrs, is_target, p_target)[0] < 0.03


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1000.0), st.floats(-100.0, 100.0))
def test_units_of_the_scores_do_not_matter(seed, unit, shift):
    scores, is_target = cosine_like_trials(seed, num_target=60, num_nontarget=200)
    llrs = fit_calibration(scores, is_target, ridge=1e-6).llrs(scores)
    other = unit * scores + shift
    assert np.allclose(fit_calibration(other, is_target, ridge=1e-6).llrs(other), llrs, atol=1e-4 * np.abs(llrs).max())


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


def test_a_calibration_survives_json():
    scores, is_target = cosine_like_trials(num_target=100, num_nontarget=300)
    scores[0] = 0.1
    for quality in (None, {"loudness": np.random.default_rng(1).normal(size=400)}):
        calibration = fit_calibration(scores, is_target, 0.1, quality)
        assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict(), allow_nan=False))) == calibration


def test_the_score_of_a_ratio_is_found_back_unless_quality_decides_too():
    calibration = Calibration(slope=4.0, offset=-1.0, prior=0.5, num_target=1, num_nontarget=1)
    assert calibration.score_at(3.0) == 1.0 and calibration.llrs([1.0]).tolist() == [3.0]
    with_quality = Calibration(4.0, -1.0, 0.5, 1, 1, quality_slopes={"loudness": 2.0})
    assert with_quality.llrs([1.0], {"loudness": [0.5]}).tolist() == [4.0]
    with pytest.raises(InputError, match="loudness"):
        with_quality.score_at(3.0)


@pytest.mark.parametrize("target, nontarget", [([2.0, 3.0], [0.0, 1.0]), ([1.0, 2.0], [1.0, 0.0])])
def test_separable_trials_are_refused_unless_slopes_are_held_down(target, nontarget):
    scores, is_target = np.array(target + nontarget), np.array([1, 1, 0, 0])
    with pytest.raises(InputError, match="2 target and 2 non-target trials are perfectly separable"):
        fit_calibration(scores, is_target)
    held_down = fit_calibration(scores, is_target, ridge=1e-3)
    assert held_down.ridge == 1e-3 and 0.0 < held_down.slope < 50.0
    assert fit_calibration(scores, is_target, ridge=1e-2).slope < held_down.slope


def test_holding_down_slopes_leaves_the_offset_free():
    scores, is_target = cosine_like_trials(num_target=50, num_nontarget=1000)
    posterior = 1.0 / (1.0 + np.exp(-fit_calibration(scores, is_target, ridge=0.1).llrs(scores)))
    assert np.mean(1.0 - posterior[is_target]) == pytest.approx(np.mean(posterior[~is_target]), abs=1e-8)


def test_trials_that_only_the_quality_separates_are_refused_too():
    scores, is_target = np.array([1.0, 3.0, 2.0, 4.0]), np.array([1, 1, 0, 0])
    with pytest.raises(InputError, match="separable"):
        fit_calibration(scores, is_target, quality={"loudness": np.array([1.0, 3.1, 0.0, 2.0])})


@pytest.mark.parametrize("scores, labels, constants, named", [
    ([0.0, 1.0, 2.0, 1.5], [1, 1, 0, 0], {"ridge": 1e-3}, "higher scores go with non-targets"),
    ([1.0, 1.0, 1.0, 1.0], [1, 1, 0, 0], {}, "every trial has score 1.0"),
    ([0.0, np.nan, 1.0, 2.0], [1, 1, 0, 0], {}, "trial 1 .*nan"),
    ([0.0, 1.0], [1, 1], {}, "2 target and 0 non-target"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"prior": 1.0}, "prior is 1.0"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"ridge": -1.0}, "ridge is -1.0"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"quality": {"q": [1.0, 2.0]}}, r"quality measure q of shape \(2,\)"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"quality": {"q": [1.0, 2.0, np.inf, 0.0]}}, "quality measure q"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"quality": {"q": [1.0] * 4}}, "every trial has q 1.0"),
    ([0.0, 1.0, 0.5, 0.7], [1, 0, 1, 0], {"quality": {"score": [1.0, 2.0, 3.0, 4.0]}}, "called score"),
])  # fmt: skip
def test_bad_calibration_trials_are_named(scores, labels, constants, named):
    with pytest.raises(InputError, match=named):
        fit_calibration(np.array(scores), np.array(labels), **constants)


def test_ratios_without_the_quality_that_the_fit_used_are_refused():
    calibration = Calibration(1.0, 0.0, 0.5, 1, 1, quality_slopes={"loudness": 2.0})
    for quality in (None, {"length": [1.0]}, {"loudness": [1.0], "length": [1.0]}):
        with pytest.raises(InputError, match="fitted with the quality measures .*loudness"):
            calibration.llrs([1.0], quality)


@pytest.mark.parametrize("change, named", [
    ({"slope": "4"}, "slope is '4'"), ({"slope": -1.0}, "slope is -1.0"), ({"offset": float("nan")}, "offset is nan"),
    ({"prior": True}, "prior is True"), ({"quality_slopes": {"q": None}}, "q is None"), ({"extra": 1}, "extra"),
    ({"quality_slopes": [1.0]}, "quality_slopes are"),
])  # fmt: skip
def test_a_damaged_calibration_file_is_refused(change, named):
    content = Calibration(4.0, -1.0, 0.5, 10, 20).to_dict()
    with pytest.raises(InputError, match=named):
        Calibration.from_dict(content | change)
    with pytest.raises(InputError, match="found list"):
        Calibration.from_dict([1.0])
    del content["slope"]
    with pytest.raises(InputError, match="holds"):
        Calibration.from_dict(content)


@pytest.mark.parametrize("enrol_s, test_s, named", [
    ([1.0, 0.0], [1.0, 2.0], "trial 1 .*0.0 and 2.0 s"), ([1.0], [np.nan], "trial 0 .*nan"),
])  # fmt: skip
def test_durations_that_are_none_are_named(enrol_s, test_s, named):
    with pytest.raises(InputError, match=named):
        log_durations(enrol_s, test_s)


def test_thresholds_keep_to_the_far_of_their_use_and_no_lower_one_does():
    llrs, is_target, *_ = trials_of_speakers(num_speakers=100)  # 123,750 non-target trials: 12 false accepts at 0.01 %
    for use, support in ((SMART_SPEAKER, "supported"), (DOOR, "coarse")):
        point = choose_operating_point(use, llrs, is_target)
        rates = error_rates(llrs, is_target)
        here = int(np.searchsorted(rates.thresholds, point.threshold))
        assert rates.thresholds[here] == point.threshold
        assert rates.far[here] <= use.max_far < rates.far[here - 1]
        assert (point.use, point.max_far, point.support) == (use.name, use.max_far, support)


def test_a_door_settles_for_the_lowest_far_that_the_trials_support_and_says_so():
    llrs, is_target, *_ = trials_of_speakers(num_speakers=30)  # 10,875 non-target trials
    point = choose_operating_point(DOOR, llrs, is_target)
    assert point.max_far == pytest.approx(30 / 10_875) and point.support == "supported"
    assert "too few non-target trials to support 0.01 %" in point.rule
    assert np.count_nonzero(llrs[~is_target] >= point.threshold) == 30


def test_custom_costs_give_the_bayes_threshold_whatever_the_trials():
    llrs, is_target, *_ = trials_of_speakers()
    point = choose_operating_point(CustomUse(p_target=0.5, c_miss=1.0, c_fa=100.0), llrs, is_target)
    assert point.threshold == pytest.approx(np.log(100.0)) and point.max_far is None
    assert "c_fa 100" in point.rule


@pytest.mark.parametrize("use, num_nontarget, enough", [(SMART_SPEAKER, 299, "300"), (DOOR, 2999, "3,000")])
def test_a_use_that_the_trials_cannot_speak_of_is_refused_with_the_number_needed(use, num_nontarget, enough):
    llrs = np.linspace(-1.0, 1.0, num_nontarget + 1)
    with pytest.raises(InputError, match=rf"{use.name}: .*{num_nontarget:,} non-target trials; .* {enough} or more"):
        choose_operating_point(use, llrs, np.arange(llrs.size) == num_nontarget)
    llrs = np.append(llrs, 0.5)
    assert choose_operating_point(use, llrs, np.arange(llrs.size) == num_nontarget).use == use.name


def test_tied_ratios_that_leave_only_rejecting_all_are_refused():
    with pytest.raises(InputError, match="door: no threshold .*rejecting all"):
        choose_operating_point(DOOR, np.zeros(40_000), np.arange(40_000) < 10)


def test_a_threshold_is_measured_on_another_list_with_intervals_and_counts():
    held_out, test = trials_of_speakers(seed=0), trials_of_speakers(seed=1)
    points = {use.name: choose_operating_point(use, *held_out[:2]) for use in (SMART_SPEAKER, DOOR)}
    results = measure_operating_points(points, *test, num_replicates=100, seed=0)
    llrs, is_target = test[:2]
    for name, result in results.items():
        accepted = llrs >= points[name].threshold
        assert result.threshold == points[name].threshold
        assert result.far.estimate == pytest.approx(np.mean(accepted[~is_target]), abs=1e-12)
        assert result.frr.estimate == pytest.approx(np.mean(~accepted[is_target]), abs=1e-12)
        assert result.num_false_accepts == np.count_nonzero(accepted[~is_target])
        assert result.num_false_rejects == np.count_nonzero(~accepted[is_target])
        assert result.far.lower < result.far.estimate < result.far.upper
    assert results["door"].far.estimate < results["smart_speaker"].far.estimate


def test_a_trial_on_the_threshold_is_accepted():
    llrs, is_target, enrol, test = trials_of_speakers()
    on_target = OperatingPoint("on", float(llrs[is_target][0]), None, None, "")
    on_nontarget = OperatingPoint("on", float(llrs[~is_target][0]), None, None, "")
    points = {"target": on_target, "nontarget": on_nontarget}
    results = measure_operating_points(points, llrs, is_target, enrol, test, num_replicates=2, seed=0)
    assert results["target"].num_false_rejects == np.count_nonzero(llrs[is_target] < on_target.threshold)
    assert results["nontarget"].num_false_accepts == np.count_nonzero(llrs[~is_target] >= on_nontarget.threshold)
    assert results["target"].frr.estimate == pytest.approx(results["target"].num_false_rejects / 300, abs=1e-12)
    assert results["nontarget"].far.estimate == pytest.approx(
        results["nontarget"].num_false_accepts / 10_875, abs=1e-12
    )


def test_a_result_is_worded_for_people():
    held_out = trials_of_speakers()
    points = {"smart_speaker": choose_operating_point(SMART_SPEAKER, *held_out[:2])}
    points["never"] = OperatingPoint("never", 1e6, None, None, "")
    results = measure_operating_points(points, *held_out, num_replicates=50, seed=0)
    text = in_words("smart_speaker", results["smart_speaker"])
    assert "strangers let in: about 1 attempt in 100 (108 of 10,875, 0.993 %, 95 % interval" in text
    text = in_words("never", results["never"])
    assert "strangers let in: no attempt (0 of 10,875, 0 %, 95 % interval 0 to 0.69 %)" in text  # 3 / 435 pairs
    assert "refused: about 100 of 100 attempts (300 of 300, 100 %" in text
