"""Thresholds for stated uses keep to their FAR, are measured on other trials, and are described in words."""

import numpy as np
import pytest

from tests.unit.metrics.test_calibration import trials_of_speakers
from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.bootstrap import SpeakerBootstrap
from voice_biometrics.metrics.error_rates import Cost, error_rates
from voice_biometrics.metrics.operating_points import (
    DOOR,
    SMART_SPEAKER,
    ChosenThreshold,
    CustomUse,
    choose_threshold,
    in_words,
    measure_thresholds,
)


def measure(points, trials):
    llrs, *labels_and_speakers = trials
    return measure_thresholds(points, llrs, SpeakerBootstrap(*labels_and_speakers, num_replicates=100))


def test_thresholds_keep_to_the_far_of_their_use_and_no_lower_one_does():
    llrs, is_target, *_ = trials_of_speakers(num_speakers=100)  # 123,750 non-target trials: 12 false accepts at 0.01 %
    for use, support in ((SMART_SPEAKER, "supported"), (DOOR, "coarse")):
        point = choose_threshold(use, llrs, is_target)
        rates = error_rates(llrs, is_target)
        here = int(np.searchsorted(rates.thresholds, point.threshold))
        assert rates.thresholds[here] == point.threshold
        assert rates.far[here] <= use.max_far < rates.far[here - 1]
        assert (point.use, point.max_far, point.support) == (use.name, use.max_far, support)


def test_a_door_settles_for_the_lowest_far_that_the_trials_support_and_says_so():
    llrs, is_target, *_ = trials_of_speakers(num_speakers=30)  # 10,875 non-target trials
    point = choose_threshold(DOOR, llrs, is_target)
    assert point.max_far == pytest.approx(30 / 10_875) and point.support == "supported"
    assert "too few non-target trials to support 0.01 %" in point.rule
    assert np.count_nonzero(llrs[~is_target] >= point.threshold) == 30


def test_custom_costs_give_the_bayes_threshold_whatever_the_trials():
    llrs, is_target, *_ = trials_of_speakers()
    point = choose_threshold(CustomUse(Cost(0.5, 1.0, 100.0)), llrs, is_target)
    assert point.threshold == pytest.approx(np.log(100.0)) and point.max_far is None
    assert "c_fa 100" in point.rule


def test_a_use_that_the_trials_cannot_speak_of_is_refused_with_the_number_needed():
    for use, num_nontarget, enough in [(SMART_SPEAKER, 299, "300"), (DOOR, 2999, "3,000")]:
        llrs = np.linspace(-1.0, 1.0, num_nontarget + 1)
        with pytest.raises(
            InputError, match=rf"{use.name}: .*{num_nontarget:,} non-target trials; .* {enough} or more"
        ):
            choose_threshold(use, llrs, np.arange(llrs.size) == num_nontarget)
        llrs = np.append(llrs, 0.5)
        assert choose_threshold(use, llrs, np.arange(llrs.size) == num_nontarget).use == use.name


def test_tied_ratios_that_leave_only_rejecting_all_are_refused():
    with pytest.raises(InputError, match="door: no threshold .*rejecting all"):
        choose_threshold(DOOR, np.zeros(40_000), np.arange(40_000) < 10)


def test_a_threshold_is_measured_on_another_list_with_intervals_and_counts():
    held_out, test = trials_of_speakers(seed=0), trials_of_speakers(seed=1)
    points = {use.name: choose_threshold(use, *held_out[:2]) for use in (SMART_SPEAKER, DOOR)}
    results = measure(points, test)
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
    on_target = ChosenThreshold("on", float(llrs[is_target][0]), None, None, "")
    on_nontarget = ChosenThreshold("on", float(llrs[~is_target][0]), None, None, "")
    points = {"target": on_target, "nontarget": on_nontarget}
    results = measure(points, (llrs, is_target, enrol, test))
    assert results["target"].num_false_rejects == np.count_nonzero(llrs[is_target] < on_target.threshold)
    assert results["nontarget"].num_false_accepts == np.count_nonzero(llrs[~is_target] >= on_nontarget.threshold)
    assert results["target"].frr.estimate == pytest.approx(results["target"].num_false_rejects / 300, abs=1e-12)
    assert results["nontarget"].far.estimate == pytest.approx(
        results["nontarget"].num_false_accepts / 10_875, abs=1e-12
    )


def test_a_result_is_worded_for_people():
    held_out = trials_of_speakers()
    points = {"smart_speaker": choose_threshold(SMART_SPEAKER, *held_out[:2])}
    points["never"] = ChosenThreshold("never", 1e6, None, None, "")
    results = measure(points, held_out)
    assert "1 attempt in 100 (108 of 10,875, 0.993 %" in in_words("smart_speaker", results["smart_speaker"])
    text = in_words("never", results["never"])
    assert "no attempt (0 of 10,875, 0 %, 95 % interval 0 to 0.69 %)" in text  # 3 / 435 pairs
    assert "about 100 of 100 attempts (300 of 300, 100 %" in text
