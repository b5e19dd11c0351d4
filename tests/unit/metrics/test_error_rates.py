"""Error rates against hand-computed cases, invariances and independent ways of computing them."""

import json

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sklearn.metrics import det_curve

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import (
    SupportedFrr,
    equal_error_rate,
    error_rates,
    far_support,
)


def as_trials(target, nontarget):
    scores = np.array([*target, *nontarget], float)
    return scores, np.arange(scores.size) < len(target)


def random_trials(seed, decimals=None, num_trials=300):
    """Overlapping score distributions of both kinds; ``decimals`` rounds them, so that scores tie."""
    rng = np.random.default_rng(seed)
    is_target = rng.random(num_trials) < 0.3
    is_target[:2] = True, False
    scores = rng.normal(size=num_trials) + 1.5 * is_target
    return scores if decimals is None else scores.round(decimals), is_target


RANDOM_TRIALS = [random_trials(seed, decimals) for seed, decimals in enumerate((None, 1, 0, None))]
SMALL_TRIALS = [random_trials(seed, decimals, num_trials=12) for seed in range(20) for decimals in (None, 0)]


def test_eer_matches_hand_computed_values_in_any_trial_order():
    for target, nontarget, expected in [
        ([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1], 0.25),  # at 0.6: 1 of 4 missed, 1 of 4 let in
        ([0.9, 0.8], [0.2, 0.1], 0.0),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5),  # all tied: no better than a coin
        ([0.1, 0.2], [0.8, 0.9], 1.0),  # the wrong way round
        ([2.0, 1.0], [1.0, 0.0], 0.25),  # (FAR, FRR) goes from (1/2, 0) to (0, 1/2): they meet half-way
        ([3.0, 1.0, 1.0, 1.0], [1.0, 0.0], 0.3),  # from (1/2, 0) to (0, 3/4): meets at 2/5 of the way
    ]:
        scores, is_target = as_trials(target, nontarget)
        for order in (slice(None), slice(None, None, -1)):
            eer, _ = equal_error_rate(scores[order], is_target[order])
            assert eer == pytest.approx(expected, abs=1e-15), (target, nontarget)


def test_eer_threshold_is_the_second_of_the_two_points_between_which_the_rates_meet():
    assert equal_error_rate(*as_trials([0.9, 0.8], [0.2, 0.1]))[1] == 0.8
    assert equal_error_rate(*as_trials([2.0, 1.0], [1.0, 0.0]))[1] == 2.0
    assert equal_error_rate(*as_trials([0.5, 0.5], [0.5]))[1] == np.inf


def test_error_rates_of_tied_scores_share_one_operating_point():
    rates = error_rates(*as_trials([2.0, 1.0, 1.0, 1.0], [1.0, 0.0]))
    assert rates.thresholds.tolist() == [0.0, 1.0, 2.0, np.inf]
    assert rates.far.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert rates.frr.tolist() == [0.0, 0.0, 0.75, 1.0]
    assert (rates.num_target, rates.num_nontarget) == (4, 2)


def test_error_rates_agree_with_scikit_learn_and_with_counting():
    for scores, is_target in RANDOM_TRIALS:
        for labels in (is_target, ~is_target):  # the rarer kind is once the targets, once the others
            rates = error_rates(scores, labels)
            accepted = scores[None, :] >= rates.thresholds[:, None]
            assert np.array_equal(rates.far, accepted[:, ~labels].mean(axis=1))
            assert np.allclose(rates.frr, 1.0 - accepted[:, labels].mean(axis=1), atol=1e-15, rtol=0)
            assert np.array_equal(rates.thresholds, [*sorted(set(scores)), np.inf])
            far, frr, thresholds = det_curve(labels, scores)
            ours = np.searchsorted(rates.thresholds, thresholds)
            assert len(far) > 3 and np.array_equal(rates.thresholds[ours], thresholds)
            assert np.abs(rates.far[ours] - far).max() < 1e-12
            assert np.abs(rates.frr[ours] - frr).max() < 1e-12


def test_figures_do_not_change_with_trial_order_repetition_or_the_type_of_labels():
    for scores, is_target in RANDOM_TRIALS:

        def figures(scores, is_target):
            rates = error_rates(scores, is_target)
            return [rates.equal_error_rate()[0], rates.min_dcf(0.05)[0], rates.frr_at_far(0.1)[0]]

        shuffled = np.random.default_rng(0).permutation(scores.size)
        for other in (
            (scores[shuffled], is_target[shuffled]),
            (np.tile(scores, 3), np.tile(is_target, 3)),
            (scores, is_target.astype(int)),
        ):
            assert figures(*other) == pytest.approx(figures(scores, is_target), abs=1e-12)


RANKS = st.lists(st.integers(0, 9), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(RANKS, RANKS, st.lists(st.floats(-1e300, 1e300), min_size=10, max_size=10, unique=True), st.floats(0.01, 0.99))
def test_only_the_order_of_scores_counts(target, nontarget, values, p_target):
    ranks, is_target = as_trials(target, nontarget)
    scores = np.sort(values)[ranks.astype(int)]  # any strictly growing map of the ranks
    assert equal_error_rate(scores, is_target)[0] == equal_error_rate(ranks, is_target)[0]
    mapped, original = error_rates(scores, is_target), error_rates(ranks, is_target)
    assert mapped.min_dcf(p_target)[0] == original.min_dcf(p_target)[0]
    assert mapped.frr_at_far(p_target)[0] == original.frr_at_far(p_target)[0]
    turned = equal_error_rate(-scores, ~is_target)[0]
    assert turned == pytest.approx(equal_error_rate(scores, is_target)[0], abs=1e-12)


def test_single_precision_scores_stay_single_and_tie_as_such():
    scores, is_target = as_trials([0.1, 0.1 + 1e-12], [0.0])
    assert error_rates(scores, is_target).thresholds.size == 4
    rates = error_rates(scores.astype(np.float32), is_target)
    assert rates.thresholds.size == 3 and rates.thresholds.dtype == np.float32


@pytest.mark.parametrize("p_target, c_miss, c_fa", [(0.01, 1.0, 1.0), (0.05, 1.0, 1.0), (0.5, 10.0, 1.0), (0.3, 1, 9)])
def test_min_dcf_is_the_least_cost_of_all_thresholds_tried_one_by_one(p_target, c_miss, c_fa):
    blind = min(c_miss * p_target, c_fa * (1 - p_target))
    for scores, is_target in SMALL_TRIALS:

        def cost(threshold, scores=scores, is_target=is_target):
            misses = np.mean(scores[is_target] < threshold)
            false_accepts = np.mean(scores[~is_target] >= threshold)
            return (c_miss * p_target * misses + c_fa * (1 - p_target) * false_accepts) / blind

        value, threshold = error_rates(scores, is_target).min_dcf(p_target, c_miss, c_fa)
        assert value == pytest.approx(min(map(cost, [*scores, np.inf])), abs=1e-12)
        assert cost(threshold) == pytest.approx(value, abs=1e-12)


def test_min_dcf_matches_hand_computed_values_and_its_normalisation():
    rates = error_rates(*as_trials([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1]))
    assert rates.min_dcf(0.05) == (pytest.approx(0.25), 0.7)  # one of four missed, none let in: 0.0125 / 0.05
    assert rates.min_dcf(0.99) == (pytest.approx(0.5), 0.3)  # none missed, two of four let in: 0.005 / 0.01
    assert rates.min_dcf(0.5, c_miss=1.0, c_fa=2.0) == (pytest.approx(0.25), 0.7)
    useless = error_rates(*as_trials([0.1, 0.2], [0.8, 0.9]))
    assert useless.min_dcf(0.05) == (1.0, np.inf)
    assert useless.min_dcf(0.95) == (pytest.approx(1.0), 0.1)  # here the cheaper is to accept all


def test_frr_at_far_takes_the_lowest_threshold_within_the_limit():
    rates = error_rates(*as_trials([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1]))
    assert [rates.frr_at_far(far) for far in (0.0, 0.25, 0.5, 1.0)] == [
        (0.25, 0.7),
        (0.25, 0.6),
        (0.0, 0.3),
        (0.0, 0.1),
    ]
    assert error_rates(*as_trials([1.0], [1.0])).frr_at_far(0.99) == (1.0, np.inf)
    with pytest.raises(InputError, match="max_far is 5"):
        rates.frr_at_far(5)


def test_summary_holds_every_constant_and_survives_strict_json():
    figures = error_rates(*as_trials([0.9, 0.8, 0.7, 0.3], [0.6, 0.4, 0.2, 0.1])).summary()
    assert (figures["eer"], figures["num_target"], figures["num_nontarget"]) == (0.25, 4, 4)
    assert figures["min_dcf"][1] == {
        "value": pytest.approx(0.25), "p_target": 0.05, "c_miss": 1.0, "c_fa": 1.0, "threshold": 0.7,
    }  # fmt: skip
    tied = error_rates(*as_trials([1.0], [1.0])).summary()
    assert tied["eer_threshold"] is None and tied["min_dcf"][0]["threshold"] is None
    for content in (figures, tied):
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_columns_of_a_table_are_taken_as_they_are():
    table = pd.DataFrame({"score": [0.9, 0.8, 0.2, 0.1], "target": [1, 1, 0, 0]})
    assert equal_error_rate(table["score"], table["target"]) == (0.0, 0.8)


def test_bad_trials_raise_and_name_the_item():
    for scores, is_target, named in [
        ([0.1, np.nan, 0.3], [True, False, True], r"trial 1 .*nan"),
        ([0.1, 0.2, np.inf], [True, False, True], r"trial 2 .*inf"),
        ([0.1, 0.2], [True, False, True], r"\(2,\).*\(3,\)"),
        ([[0.1, 0.2]], [[True, False]], r"\(1, 2\)"),
        ([0.1, 0.2], [True, True], "2 target and 0 non-target"),
        ([0.1, 0.2], [False, False], "0 target and 2 non-target"),
        ([], [], "0 target and 0 non-target"),
        ([0.1, 0.2], [1, 2], "trial 1 .*label.*2"),
        ([0.1, 0.2], [np.nan, 1.0], "trial 0 .*label.*nan"),
        ([0.1, 0.2], ["1", "0"], "trial 0 .*label.*'1'"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=named):
            error_rates(np.array(scores), np.array(is_target))


def test_bad_constants_raise_and_are_named():
    for constants, named in [
        ({"p_target": 0.0}, "p_target is 0.0"), ({"p_target": np.nan}, "p_target is nan"),
        ({"p_target": 0.5, "c_miss": 0.0}, "c_miss is 0"), ({"p_target": 0.5, "c_fa": np.inf}, "c_fa is inf"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=named):
            error_rates(*as_trials([1.0], [0.0])).min_dcf(**constants)


def test_support_follows_the_rules_of_3_and_30():
    for max_far, num_nontarget, expected in [
        (0.01, 3000, "supported"), (0.01, 2999, "coarse"), (0.01, 300, "coarse"), (0.01, 299, "unsupported"),
        (0.0, 10**9, "unsupported"), (0.0003, 100_000, "supported"), (0.0003, 10_000, "coarse"),  # products just under
    ]:  # fmt: skip
        assert far_support(max_far, num_nontarget) == expected, (max_far, num_nontarget)


def test_frr_at_an_unsupported_far_is_withheld_with_the_number_of_trials_it_takes():
    rng = np.random.default_rng(0)
    rates = error_rates(*as_trials(rng.normal(3.0, 1.0, 500), rng.normal(0.0, 1.0, 4000)))
    supported, coarse, unsupported = (SupportedFrr.of(rates, far) for far in (0.01, 0.001, 0.0001))
    assert [entry.support for entry in (supported, coarse, unsupported)] == ["supported", "coarse", "unsupported"]
    assert (supported.frr, supported.threshold) == rates.frr_at_far(0.01) and supported.remark() == ""
    assert coarse.frr == rates.frr_at_far(0.001)[0] and "4.0 false accepts in 4,000" in coarse.remark()
    assert unsupported.frr is None and unsupported.threshold is None and unsupported.remark()
    assert unsupported.needed_nontarget == 300_000
    only_reject_all = SupportedFrr.of(error_rates(*as_trials([1.0], np.ones(300))), 0.01)
    assert only_reject_all.frr == 1.0 and only_reject_all.threshold is None
    for max_far in (0.0, -0.1, 1.5, np.nan):
        with pytest.raises(InputError, match="max_far is"):
            SupportedFrr.of(rates, max_far)
