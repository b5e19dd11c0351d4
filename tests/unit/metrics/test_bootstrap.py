"""Speaker bootstrap: resamples equal repeated trials, intervals hold the truth, comparisons are paired, bad input."""

import dataclasses
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import norm

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics import bootstrap as intervals
from voice_biometrics.metrics import resampling
from voice_biometrics.metrics.bootstrap import Spread, bootstrap_differences, bootstrap_intervals
from voice_biometrics.metrics.error_rates import equal_error_rate, frr_at_far, min_dcf
from voice_biometrics.metrics.llr import act_dcf, cllr, trial_costs
from voice_biometrics.metrics.resampling import Cllr, CostAt, Eer, FrrAtFar, MinDcf, act_dcf_at, far_at, frr_at

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
    """The same figures by the package's functions for plain lists of trials."""
    return {
        "eer": equal_error_rate(scores, is_target)[0],
        "min_dcf": min_dcf(scores, is_target, 0.05)[0],
        "min_dcf_dear": min_dcf(scores, is_target, 0.01, c_miss=10.0)[0],
        "act_dcf": act_dcf(scores, is_target, 0.2),
        "frr_at_far": frr_at_far(scores, is_target, 0.1)[0],
        "frr_at_no_far": frr_at_far(scores, is_target, 0.0)[0],
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


def resampled_values(trials, multiplicity, measures=MEASURES):
    """Each measure under each row of multiplicities (resamples, speakers), and which rows were usable."""
    scores, is_target, enrol, test = trials
    thresholds = tuple(threshold for measure in measures.values() for threshold in measure.thresholds)
    ordered = resampling.SortedTrials(
        scores, is_target, enrol, test, multiplicity.shape[1], thresholds, trial_costs(scores, is_target)
    )
    resampled, usable = ordered.resample(multiplicity)
    return {name: measure.values(resampled) for name, measure in measures.items()}, usable


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_speakers=st.integers(2, 7),
    decimals=st.sampled_from([0, 1, 8]),
    block=st.sampled_from([1, 5, 64]),
)
def test_a_resample_equals_the_trials_repeated_as_often_as_drawn(seed, num_speakers, decimals, block):
    scores, is_target, enrol, test = speaker_trials(seed, num_speakers, utterances=3, distance=1.5)
    scores = scores.round(decimals)
    multiplicity = np.random.default_rng(seed).multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "TRIALS_PER_BLOCK", block)
        patch.setattr(resampling, "MIN_TRIALS_PER_BLOCK", block)
        values, usable = resampled_values((scores, is_target, enrol, test), multiplicity)
    assert np.array_equal(usable, np.count_nonzero(multiplicity, axis=1) > 1)  # one speaker alone has no non-targets
    for number, drawn in enumerate(multiplicity[usable]):
        times = np.where(is_target, drawn[enrol], drawn[enrol] * drawn[test])
        expected = by_repetition(np.repeat(scores, times), np.repeat(is_target, times))
        for name in MEASURES:
            tolerance = 1e-6 if name == "cllr" else 1e-12
            assert values[name][number] == pytest.approx(expected[name], abs=tolerance), name


@pytest.mark.parametrize("decimals", [1, 8])
def test_the_estimate_is_the_figure_of_all_trials_and_survives_strict_json(decimals):
    scores, *rest = speaker_trials(0, 40)
    scores = scores.round(decimals)
    expected = by_repetition(scores, rest[0])
    found = bootstrap_intervals(scores, *rest, MEASURES, num_replicates=20, seed=1)
    content = {name: dataclasses.asdict(interval) for name, interval in found.items()}
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    for name, interval in found.items():
        assert interval.estimate == pytest.approx(expected[name], abs=1e-6 if name == "cllr" else 1e-12)
        assert interval.lower <= interval.estimate <= interval.upper


@pytest.fixture(scope="module")
def simulated_coverage():
    """How often 25-speaker intervals hold the known truth, and their mean half-width over the estimates' deviation."""
    deviation = np.sqrt([1.25, 1.5])  # of target and of non-target scores: noise 1 and effects of 0.5
    truth = {"frr": norm.cdf((1.7 - 3.5) / deviation[0]), "far": norm.sf(1.7 / deviation[1])}
    truth["eer"] = norm.sf(3.5 / deviation.sum())  # where FRR meets FAR
    measures = {"frr": frr_at(1.7), "far": far_at(1.7), "eer": Eer()}
    runs = [
        bootstrap_intervals(*speaker_trials(seed, 25), measures, num_replicates=150, seed=seed) for seed in range(120)
    ]
    covered, widths = {}, {}
    for name in measures:
        lower, estimate, upper = np.array([[run[name].lower, run[name].estimate, run[name].upper] for run in runs]).T
        covered[name] = np.mean((lower <= truth[name]) & (truth[name] <= upper))
        widths[name] = np.mean(upper - lower) / (2 * 1.96 * estimate.std())
    return covered, widths


@pytest.mark.parametrize("name", ["frr", "far", "eer"])
def test_intervals_hold_the_truth_of_a_known_speaker_model(simulated_coverage, name):
    covered, widths = simulated_coverage
    assert 0.87 <= covered[name] <= 0.99  # 95 %, less what 25 speakers cost, with the luck of 120 lists
    assert 0.85 <= widths[name] <= 1.25  # neither too narrow nor bought with width


def test_intervals_over_trials_as_if_independent_would_miss_most_of_the_spread():
    scores, is_target, enrol, test = speaker_trials(3, 25)
    far = bootstrap_intervals(scores, is_target, enrol, test, {"far": far_at(1.7)}, num_replicates=500, seed=0)["far"]
    num_nontarget = np.count_nonzero(~is_target)
    as_if_independent = 2 * 1.96 * np.sqrt(far.estimate * (1.0 - far.estimate) / num_nontarget)
    assert far.upper - far.lower > 3.0 * as_if_independent


def test_a_target_counts_once_per_copy_of_its_speaker_which_gives_the_cluster_standard_error():
    """With the squared multiplicity the ratio below would be 1.66."""
    scores, is_target, enrol, test = speaker_trials(4, 150)
    missed = scores < 1.7
    per_speaker = np.bincount(enrol[is_target], missed[is_target]) - 6 * missed[is_target].mean()  # 6 pairs each
    standard_error = np.sqrt(np.sum(per_speaker**2)) / np.count_nonzero(is_target)
    draws = np.random.default_rng(0).multinomial(150, np.full(150, 1 / 150), 2000)
    values, _ = resampled_values((scores, is_target, enrol, test), draws, {"frr": frr_at(1.7)})
    assert values["frr"].std() / standard_error == pytest.approx(1.0, abs=0.06)


def test_a_replicate_without_one_kind_of_trials_is_counted_and_left_out():
    trials = speaker_trials(0, 3)
    interval = bootstrap_intervals(*trials, {"eer": Eer()}, num_replicates=600, seed=0)["eer"]
    assert interval.num_degenerate + interval.num_replicates == 600
    assert 600 / 9 * 0.6 < interval.num_degenerate < 600 / 9 * 1.5  # 3 draws of 3: all alike in 1 of 9
    assert interval.num_speakers == 3 and np.isfinite([interval.lower, interval.upper]).all()


def test_rates_of_zero_get_an_upper_end_by_the_rule_of_3_over_speakers():
    trials = speaker_trials(0, 20, distance=60.0)
    measures = {"eer": Eer(), "frr": frr_at(30.0), "far": far_at(30.0), "dcf": MinDcf(0.05), "frr_at": FrrAtFar(0.01)}
    found = bootstrap_intervals(*trials, measures, num_replicates=50, seed=0)
    assert {name: (interval.estimate, interval.lower) for name, interval in found.items()} == {
        name: (0.0, 0.0) for name in measures
    }
    assert found["frr"].upper == found["frr_at"].upper == pytest.approx(3 / 20)
    assert found["far"].upper == pytest.approx(3 / 190)  # pairs of speakers
    assert found["eer"].upper == pytest.approx(3 / 20)
    assert found["dcf"].upper == pytest.approx(3 / 20 + 19 * 3 / 190)


def test_the_seed_decides_the_draws_and_neither_trial_order_nor_names_change_them():
    scores, is_target, enrol, test = speaker_trials(5, 12)
    first = bootstrap_intervals(scores, is_target, enrol, test, MEASURES, num_replicates=60, seed=3)
    assert first == bootstrap_intervals(scores, is_target, enrol, test, MEASURES, num_replicates=60, seed=3)
    other = bootstrap_intervals(scores, is_target, enrol, test, MEASURES, num_replicates=60, seed=4)
    assert other["cllr"].lower != first["cllr"].lower and other["far"].upper != first["far"].upper
    order = np.random.default_rng(0).permutation(scores.size)
    names = np.array([f"speaker {code:02d}" for code in range(12)])
    renamed = bootstrap_intervals(
        scores[order], is_target[order], names[enrol][order], names[test][order], MEASURES, num_replicates=60, seed=3
    )
    for name, interval in first.items():
        close = pytest.approx(dataclasses.astuple(interval), abs=1e-6)
        assert dataclasses.astuple(renamed[name]) == close, name


def test_chunks_of_replicates_do_not_change_the_intervals(monkeypatch):
    trials = speaker_trials(6, 10)
    whole = bootstrap_intervals(*trials, MEASURES, num_replicates=70, seed=0)
    monkeypatch.setattr(intervals, "REPLICATES_AT_A_TIME", 13)
    pieces = bootstrap_intervals(*trials, MEASURES, num_replicates=70, seed=0)
    for name in MEASURES:
        assert dataclasses.astuple(pieces[name]) == pytest.approx(dataclasses.astuple(whole[name]), abs=1e-9)


def test_many_speakers_are_left_out_in_groups_with_much_the_same_interval(monkeypatch):
    trials = speaker_trials(7, 60)
    alone = bootstrap_intervals(*trials, {"frr": frr_at(1.7)}, num_replicates=400, seed=0)["frr"]
    monkeypatch.setattr(intervals, "JACKKNIFE_GROUPS", 30)
    grouped = bootstrap_intervals(*trials, {"frr": frr_at(1.7)}, num_replicates=400, seed=0)["frr"]
    assert grouped.lower != alone.lower or grouped.upper != alone.upper
    assert [grouped.lower, grouped.upper] == pytest.approx([alone.lower, alone.upper], rel=0.15)


def test_a_pair_of_systems_is_compared_within_each_replicate():
    """Two systems, one with slightly lower target scores: each has a wide interval, their difference a narrow one."""
    scores, *rest = speaker_trials(8, 30, effect=0.8)
    slightly_worse = scores - 0.3 * rest[0]
    measures = {"eer": Eer(), "frr": frr_at(2.5)}
    alone = bootstrap_intervals(scores, *rest, measures, num_replicates=300, seed=0)
    difference = bootstrap_differences(slightly_worse, scores, *rest, measures, num_replicates=300, seed=0)
    expected = equal_error_rate(slightly_worse, rest[0])[0] - equal_error_rate(scores, rest[0])[0]
    assert difference["eer"].estimate == pytest.approx(expected, abs=1e-12)
    for name in measures:
        width = difference[name].upper - difference[name].lower
        assert width < 0.7 * (alone[name].upper - alone[name].lower), name
        assert difference[name].lower > 0.0 and difference[name].p_value < 0.05, name
    swapped = bootstrap_differences(scores, slightly_worse, *rest, measures, num_replicates=300, seed=0)
    assert swapped["frr"].estimate == pytest.approx(-difference["frr"].estimate, abs=1e-12)
    assert swapped["frr"].p_value == pytest.approx(difference["frr"].p_value, abs=1e-9)


def test_a_system_differs_in_nothing_from_itself_on_another_scale_with_its_own_threshold():
    scores, *rest = speaker_trials(9, 10)
    measures, measures_b = ({"eer": Eer(), "far": far_at(threshold)} for threshold in (1.0, 6.0))
    for found in bootstrap_differences(
        scores, scores + 5.0, *rest, measures, measures_b, num_replicates=50, seed=0
    ).values():
        assert (found.estimate, found.lower, found.upper, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_p_value_is_one_in_twenty_at_the_ends_of_the_interval(skewed):
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
    interval = bootstrap_intervals(*speaker_trials(11, 2), {"far": far_at(0.0)}, num_replicates=100, seed=0)["far"]
    assert interval.lower <= interval.estimate <= interval.upper


@pytest.mark.parametrize("change, named", [
    ({"enrol_speaker": ["a", "b", "c"]}, r"\(3,\) enrolment speakers for \(4,\)"),
    ({"test_speaker": ["a", "b", "b", None]}, "trial 3 .*no speaker"),
    ({"enrol_speaker": ["a", "b", "b", "b"]}, r"trial 2 .*labelled non-target.* b and b \(1 such"),
    ({"enrol_speaker": ["a", "a", "a", "b"]}, "trial 1 .*labelled target.* a and b"),
    ({"scores": [0.1, np.nan, 0.2, 0.3]}, "trial 1 .*nan"),
    ({"is_target": [1, 1, 1, 1]}, "4 target and 0 non-target"),
    ({"num_replicates": 0}, "num_replicates is 0"),
])  # fmt: skip
def test_bad_trials_raise_and_name_the_item(change, named):
    arguments = {
        "scores": [0.9, 0.8, 0.2, 0.1], "is_target": [1, 1, 0, 0], "enrol_speaker": ["a", "b", "a", "b"],
        "test_speaker": ["a", "b", "b", "a"], "num_replicates": 10,
    } | change  # fmt: skip
    num_replicates = arguments.pop("num_replicates")
    arrays = {name: np.array(value) for name, value in arguments.items()}
    with pytest.raises(InputError, match=named):
        bootstrap_intervals(**arrays, measures={"eer": Eer()}, num_replicates=num_replicates, seed=0)


def test_draws_that_never_have_both_kinds_are_refused():
    """All targets are of one speaker, all non-targets of two others: the lone draw of seed 0 lacks one of them."""
    arrays = [np.array([0.9, 0.1]), np.array([1, 0]), np.array(["a", "b"]), np.array(["a", "c"])]
    draws = np.random.default_rng(1).multinomial(3, [1 / 3] * 3, 1)
    assert draws.min() == 0
    with pytest.raises(InputError, match="none of 1 draws"):
        bootstrap_intervals(*arrays, {"eer": Eer()}, num_replicates=1, seed=1)


def test_bad_measures_are_refused():
    with pytest.raises(InputError, match="max_far is 5"):
        FrrAtFar(5.0)
    with pytest.raises(InputError, match="p_target is 0"):
        MinDcf(0.0)
    with pytest.raises(InputError, match="threshold is NaN"):
        CostAt(np.nan, 1.0, 0.0)
    scores, *rest = speaker_trials(0, 4)
    with pytest.raises(InputError, match="measures"):
        bootstrap_differences(scores, scores, *rest, {"eer": Eer()}, {"far": far_at(0.0)}, num_replicates=5, seed=0)
