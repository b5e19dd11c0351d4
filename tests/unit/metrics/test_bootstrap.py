"""Speaker bootstrap: resamples equal repeated trials, intervals hold the truth, comparisons are paired, bad input."""

import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import norm

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics import bootstrap
from voice_biometrics.metrics.bootstrap import (
    Cllr,
    Eer,
    FrrAtFar,
    MinDcf,
    SpeakerBootstrap,
    Spread,
    act_dcf_at,
    far_at,
    frr_at,
)
from voice_biometrics.metrics.error_rates import equal_error_rate, error_rates
from voice_biometrics.metrics.llr import cllr

MEASURES = {
    "eer": Eer(),
    "min_dcf": MinDcf(0.05),
    "min_dcf_dear": MinDcf(0.01, c_miss=10.0),
    "act_dcf": act_dcf_at(0.2),
    "frr_at_far": FrrAtFar(0.1),
    "frr_at_no_far": FrrAtFar(0.0),
    "far": far_at(0.5),
    "frr": frr_at(0.5),
    "cllr": Cllr(),
}


def by_repetition(scores, is_target):
    """The same figures by counting, or by the package's functions for plain lists of trials."""
    rates = error_rates(scores, is_target)
    misses, false_accepts = np.mean(scores[is_target] < np.log(4.0)), np.mean(scores[~is_target] >= np.log(4.0))
    return {
        "eer": rates.equal_error_rate()[0],
        "min_dcf": rates.min_dcf(0.05)[0],
        "min_dcf_dear": rates.min_dcf(0.01, c_miss=10.0)[0],
        "act_dcf": misses + 4.0 * false_accepts,
        "frr_at_far": rates.frr_at_far(0.1)[0],
        "frr_at_no_far": rates.frr_at_far(0.0)[0],
        "far": np.mean(scores[~is_target] >= 0.5),
        "frr": np.mean(scores[is_target] < 0.5),
        "cllr": cllr(scores, is_target),
    }


def speaker_trials(seed, num_speakers, utterances=4, effect=0.5, distance=3.5):
    """All pairs of utterances; a speaker shifts target scores, and non-target scores on either side.

    Returns scores, is_target, enrol_speaker, test_speaker. Noise has a deviation of 1, both effects ``effect``.
    """
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(num_speakers), utterances)
    first, second = np.triu_indices(speaker.size, 1)
    enrol, test = speaker[first], speaker[second]
    goat, wolf = effect * rng.normal(size=(2, num_speakers))
    is_target = enrol == test
    shift = np.where(is_target, distance + goat[enrol], wolf[enrol] + wolf[test])
    return rng.normal(size=enrol.size) + shift, is_target, enrol, test


def intervals(trials, measures, *, num_replicates, seed):
    scores, *labels_and_speakers = trials
    return SpeakerBootstrap(*labels_and_speakers, num_replicates=num_replicates, seed=seed).intervals(scores, measures)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_speakers=st.integers(2, 7),
    decimals=st.sampled_from([0, 1, 8]),
)
def test_a_resample_equals_the_trials_repeated_as_often_as_drawn(seed, num_speakers, decimals):
    scores, is_target, enrol, test = speaker_trials(seed, num_speakers, utterances=3, distance=1.5)
    scores = scores.round(decimals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "DRAWS_AT_A_TIME", 5)
        resampled = SpeakerBootstrap(is_target, enrol, test, num_replicates=8, seed=seed)
        values = resampled.replicates(scores, MEASURES)
    for number, drawn in enumerate(bootstrap.draw_speakers(num_speakers, 8, seed)):
        if np.count_nonzero(drawn) < 2:  # one speaker alone has no non-targets
            assert all(np.isnan(of_measure[number]) for of_measure in values.values())
            continue
        times = np.where(is_target, drawn[enrol], drawn[enrol] * drawn[test])
        expected = by_repetition(np.repeat(scores, times), np.repeat(is_target, times))
        for name in MEASURES:
            assert values[name][number] == pytest.approx(expected[name], abs=1e-12), name


def test_the_estimate_is_the_figure_of_all_trials_and_survives_strict_json():
    scores, *rest = speaker_trials(0, 40)
    scores = scores.round(1)
    expected = by_repetition(scores, rest[0])
    found = intervals((scores, *rest), MEASURES, num_replicates=20, seed=1)
    content = {name: dataclasses.asdict(interval) for name, interval in found.items()}
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    for name, interval in found.items():
        assert interval.estimate == pytest.approx(expected[name], abs=1e-12)
        assert interval.lower <= interval.estimate <= interval.upper


def test_intervals_hold_the_truth_of_a_known_speaker_model():
    deviation = np.sqrt([1.25, 1.5])  # of target and of non-target scores: noise 1 and effects of 0.5
    truth = {"frr": norm.cdf((1.7 - 3.5) / deviation[0]), "far": norm.sf(1.7 / deviation[1])}
    truth["eer"] = norm.sf(3.5 / deviation.sum())  # where FRR meets FAR
    measures = {"frr": frr_at(1.7), "far": far_at(1.7), "eer": Eer()}
    runs = [intervals(speaker_trials(seed, 25), measures, num_replicates=150, seed=seed) for seed in range(120)]
    for name in measures:
        lower, estimate, upper = np.array([[run[name].lower, run[name].estimate, run[name].upper] for run in runs]).T
        covered = np.mean((lower <= truth[name]) & (truth[name] <= upper))
        assert 0.87 <= covered <= 0.99, name  # 95 %, less what 25 speakers cost, with the luck of 120 lists
        width = np.mean(upper - lower) / (2 * 1.96 * estimate.std())
        assert 0.85 <= width <= 1.25, name  # neither too narrow nor bought with width


def test_intervals_over_trials_as_if_independent_would_miss_most_of_the_spread():
    scores, is_target, enrol, test = speaker_trials(3, 25)
    trials = scores, is_target, enrol, test
    far = intervals(trials, {"far": far_at(1.7)}, num_replicates=500, seed=0)["far"]
    num_nontarget = np.count_nonzero(~is_target)
    as_if_independent = 2 * 1.96 * np.sqrt(far.estimate * (1.0 - far.estimate) / num_nontarget)
    assert far.upper - far.lower > 3.0 * as_if_independent


def test_a_target_counts_once_per_copy_of_its_speaker_which_gives_the_cluster_standard_error():
    """With the squared multiplicity the ratio below would be 1.66."""
    scores, is_target, enrol, test = speaker_trials(4, 150)
    missed = scores < 1.7
    per_speaker = np.bincount(enrol[is_target], missed[is_target]) - 6 * missed[is_target].mean()  # 6 pairs each
    standard_error = np.sqrt(np.sum(per_speaker**2)) / np.count_nonzero(is_target)
    resampled = SpeakerBootstrap(is_target, enrol, test, num_replicates=2000)
    drawn = resampled.replicates(scores, {"frr": frr_at(1.7)})["frr"][1:2001]
    assert drawn.std() / standard_error == pytest.approx(1.0, abs=0.06)


def test_a_replicate_without_one_kind_of_trials_is_counted_and_left_out():
    trials = speaker_trials(0, 3)
    interval = intervals(trials, {"eer": Eer()}, num_replicates=600, seed=0)["eer"]
    assert interval.num_degenerate + interval.num_replicates == 600
    assert 600 / 9 * 0.6 < interval.num_degenerate < 600 / 9 * 1.5  # 3 draws of 3: all alike in 1 of 9
    assert interval.num_speakers == 3 and np.isfinite([interval.lower, interval.upper]).all()


def test_rates_of_zero_get_an_upper_end_by_the_rule_of_3_over_speakers():
    trials = speaker_trials(0, 20, distance=60.0)
    measures = {"eer": Eer(), "frr": frr_at(30.0), "far": far_at(30.0), "dcf": MinDcf(0.05), "frr_at": FrrAtFar(0.01)}
    found = intervals(trials, measures, num_replicates=50, seed=0)
    assert {name: (interval.estimate, interval.lower) for name, interval in found.items()} == {
        name: (0.0, 0.0) for name in measures
    }
    assert found["frr"].upper == found["frr_at"].upper == pytest.approx(3 / 20)
    assert found["far"].upper == pytest.approx(3 / 190)  # pairs of speakers
    assert found["eer"].upper == pytest.approx(3 / 20)
    assert found["dcf"].upper == pytest.approx(3 / 20 + 19 * 3 / 190)


def test_the_seed_decides_the_draws_and_neither_trial_order_nor_names_change_them():
    scores, is_target, enrol, test = speaker_trials(5, 12)
    first = intervals((scores, is_target, enrol, test), MEASURES, num_replicates=60, seed=3)
    assert first == intervals((scores, is_target, enrol, test), MEASURES, num_replicates=60, seed=3)
    other = intervals((scores, is_target, enrol, test), MEASURES, num_replicates=60, seed=4)
    assert other["cllr"].lower != first["cllr"].lower and other["far"].upper != first["far"].upper
    order = np.random.default_rng(0).permutation(scores.size)
    names = np.array([f"speaker {code:02d}" for code in range(12)])
    renamed = intervals(
        (scores[order], is_target[order], names[enrol][order], names[test][order]), MEASURES, num_replicates=60, seed=3
    )
    for name, interval in first.items():
        close = pytest.approx(dataclasses.astuple(interval), abs=1e-9)
        assert dataclasses.astuple(renamed[name]) == close, name


def test_many_speakers_are_left_out_in_groups_with_much_the_same_interval(monkeypatch):
    trials = speaker_trials(7, 60)
    alone = intervals(trials, {"frr": frr_at(1.7)}, num_replicates=400, seed=0)["frr"]
    monkeypatch.setattr(bootstrap, "JACKKNIFE_GROUPS", 30)
    grouped = intervals(trials, {"frr": frr_at(1.7)}, num_replicates=400, seed=0)["frr"]
    assert grouped.lower != alone.lower or grouped.upper != alone.upper
    assert [grouped.lower, grouped.upper] == pytest.approx([alone.lower, alone.upper], rel=0.15)


def test_a_pair_of_systems_is_compared_within_each_replicate():
    """Two systems, one with slightly lower target scores: each has a wide interval, their difference a narrow one."""
    scores, *rest = speaker_trials(8, 30, effect=0.8)
    slightly_worse = scores - 0.3 * rest[0]
    measures = {"eer": Eer(), "frr": frr_at(2.5)}
    resampled = SpeakerBootstrap(*rest, num_replicates=300)
    alone = resampled.intervals(scores, measures)
    difference = resampled.differences(slightly_worse, scores, measures)
    expected = equal_error_rate(slightly_worse, rest[0])[0] - equal_error_rate(scores, rest[0])[0]
    assert difference["eer"].estimate == pytest.approx(expected, abs=1e-12)
    for name in measures:
        width = difference[name].upper - difference[name].lower
        assert width < 0.7 * (alone[name].upper - alone[name].lower), name
        assert difference[name].lower > 0.0 and difference[name].p_value < 0.05, name
    swapped = resampled.differences(scores, slightly_worse, measures)
    assert swapped["frr"].estimate == pytest.approx(-difference["frr"].estimate, abs=1e-12)
    assert swapped["frr"].p_value == pytest.approx(difference["frr"].p_value, abs=1e-9)


def test_a_system_does_not_differ_from_itself_on_another_scale():
    scores, *rest = speaker_trials(9, 10)
    found = SpeakerBootstrap(*rest, num_replicates=50).differences(scores, scores + 5.0, {"eer": Eer()})["eer"]
    assert (found.estimate, found.lower, found.upper, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_p_value_is_one_in_twenty_at_the_ends_of_the_interval():
    for skewed in [False, True]:
        rng = np.random.default_rng(0)
        replicates = rng.normal(size=20_000)
        replicates = np.exp(0.4 * replicates) if skewed else replicates
        left_out = rng.exponential(size=30) if skewed else rng.normal(size=30)
        spread = Spread.of(1.05 if skewed else 0.1, replicates, left_out, num_units=30)
        lower, upper = spread.ends()
        assert [spread.p_value_of(end) for end in (lower, upper)] == pytest.approx([0.05, 0.05], abs=0.004)
        assert spread.p_value_of(spread.estimate) > 0.9 and spread.p_value_of(lower - 1.0) < 0.05


def test_bca_of_a_symmetric_unbiased_spread_is_the_t_interval():
    replicates = norm.ppf((np.arange(100_001) + 0.5) / 100_001)
    lower, upper = Spread.of(0.0, replicates, np.array([-1.0, 1.0]), num_units=10).ends()
    half_width = 2.2622 * np.sqrt(10 / 9)  # t of 9 degrees of freedom, and the spread of 10 draws for that of 9
    assert [lower, upper] == pytest.approx([-half_width, half_width], abs=0.01)


def test_two_speakers_give_a_wide_interval_rather_than_an_error():
    interval = intervals(speaker_trials(11, 2), {"far": far_at(0.0)}, num_replicates=100, seed=0)["far"]
    assert interval.lower <= interval.estimate <= interval.upper


def test_bad_trials_raise_and_name_the_item():
    for change, named in [
        ({"test_speaker": ["a", "b", "b", None]}, "no speaker on one side"),
        ({"enrol_speaker": ["a", "b", "b", "b"]}, "a label that its speakers contradict"),
        ({"is_target": [1, 1, 1, 1]}, "4 target and 0 non-target"),
    ]:  # fmt: skip
        arguments = {
            "is_target": [1, 1, 0, 0], "enrol_speaker": ["a", "b", "a", "b"], "test_speaker": ["a", "b", "b", "a"],
        }  # fmt: skip
        arrays = {name: np.array(value) for name, value in (arguments | change).items()}
        with pytest.raises(ValueError, match=named):
            SpeakerBootstrap(**arrays)
        with pytest.raises(InputError, match="trial 1 .*nan"):
            SpeakerBootstrap(*arguments.values(), num_replicates=2).intervals([0.1, np.nan, 0.2, 0.3], {"eer": Eer()})


def test_draws_that_never_have_both_kinds_are_refused():
    """All targets are of one speaker, all non-targets of two others: the lone draw of seed 1 lacks one of them."""
    assert bootstrap.draw_speakers(3, 1, seed=1)[1].min() == 0
    resampled = SpeakerBootstrap([1, 0], ["a", "b"], ["a", "c"], num_replicates=1, seed=1)
    with pytest.raises(InputError, match="none of 1 draws"):
        resampled.intervals([0.9, 0.1], {"eer": Eer()})


def test_a_threshold_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="threshold is NaN"):
        far_at(np.nan)
