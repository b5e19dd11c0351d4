"""Operating points: chosen by name or by a FAR that the trials support, and raised for many voices."""

import math

import pytest
from msgspec.structs import replace

from tests.model_folders import write_toy_model_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.decisions import choose_point, identification_point
from voice_biometrics.inference.model_folder import ErrorCurve, read_model_folder


@pytest.fixture
def entry(tmp_path):
    """A curve with FARs of 6, 1 and 0.05 % at LLRs of 0, 2 and 4, from 120,000 comparisons of two people."""
    return read_model_folder(write_toy_model_folder(tmp_path / "model")).embedder("fp32")


def test_a_use_gives_the_measured_point(entry):
    point = choose_point(entry, use="door")
    assert (point.use, point.threshold, point.max_far, point.far, point.frr) == ("door", 4.0, 0.0005, 0.0005, 0.2)
    assert (point.far_interval, point.frr_interval, point.num_nontarget) == ((0.00025, 0.001), (0.15, 0.25), 120000)


def test_a_far_gives_the_lowest_threshold_that_keeps_to_it(entry):
    point = choose_point(entry, max_far=0.02)
    assert (point.use, point.threshold, point.far, point.frr) == ("far 0.02", 2.0, 0.01, 0.2)
    assert point.far_interval is None and point.max_far == 0.02


def test_a_far_that_the_trials_cannot_support_and_an_unknown_use_are_told(entry):
    for max_far in (0.0, 1.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="out of range"):
            choose_point(entry, max_far=max_far)
    with pytest.raises(InputError, match="2e-05.*120,000.*0.00025"):
        choose_point(entry, max_far=2e-5)
    with pytest.raises(InputError, match="window.*smart_speaker, door.*--far"):
        choose_point(entry, use="window")
    for neither_or_both in ({}, {"use": "door", "max_far": 0.1}):
        with pytest.raises(ValueError, match="one of the two"):
            choose_point(entry, **neither_or_both)


def test_one_voice_is_a_verification_and_many_share_the_far_as_far_as_it_was_measured(entry):
    point = choose_point(entry, use="smart_speaker")
    alone = identification_point(entry, point, num_voices=1)
    assert (alone.threshold, alone.frr, alone.max_far, alone.is_extrapolated) == (2.0, 0.2, 0.01, False)
    twenty = identification_point(entry, point, num_voices=20)  # 0.05 % each
    assert (twenty.threshold, twenty.frr, twenty.is_extrapolated) == (4.0, 0.5, False)


def test_beyond_what_was_measured_the_threshold_rises_by_the_logarithm_and_says_so(entry):
    """The lowest FAR with 30 errors in 120,000 is 0.025 %, which the curve reaches at 5.5."""
    point = choose_point(entry, use="smart_speaker")
    many = identification_point(entry, point, num_voices=4000)  # 0.00025 % each
    assert many.threshold == pytest.approx(5.5 + math.log(0.00025 / 0.0000025))
    assert many.is_extrapolated and many.frr == 0.9


def test_a_curve_that_ends_early_is_extended_from_its_end(entry):
    rates = entry.error_rates
    short = replace(entry, error_rates=ErrorCurve(llr=rates.llr[:4], far=rates.far[:4], frr=rates.frr[:4]))
    many = identification_point(short, choose_point(short, use="smart_speaker"), num_voices=4000)
    assert many.threshold == pytest.approx(4.0 + math.log(0.0005 / 0.0000025)) and many.is_extrapolated


def test_the_threshold_never_falls_when_voices_are_added(entry):
    for point in (choose_point(entry, use="door"), choose_point(entry, max_far=0.3)):
        thresholds = [
            identification_point(entry, point, number).threshold for number in (1, 2, 3, 10, 100, 10**3, 10**6)
        ]
        assert thresholds == sorted(thresholds) and thresholds[0] == point.threshold < thresholds[-1]
