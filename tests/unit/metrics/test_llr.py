"""Actual DCF, C_llr, minC_llr, EER on the hull and supported FARs: hand-computed, against peers, invariants."""

import json
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from llreval import cllr as peer_cllr
from llreval.bayes_error_rate import fast_Bayes_error_rate
from llreval.pav_rocch import PAV, ROCCH
from scipy.spatial import ConvexHull
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import det_curve, log_loss

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import (
    Cost,
    equal_error_rate,
    error_rates,
    far_support,
    min_dcf,
    supported_frr_at_far,
)
from voice_biometrics.metrics.llr import (
    act_dcf,
    bayes_threshold,
    cllr,
    llr_summary,
    min_cllr,
    pav_bins,
    rocch_eer,
)


def as_trials(target, nontarget):
    scores = np.array([*target, *nontarget], float)
    return scores, np.arange(scores.size) < len(target)


def random_trials(seed, decimals=None, num_trials=400):
    """Roughly calibrated, overlapping scores of both kinds; ``decimals`` rounds them, so that scores tie."""
    rng = np.random.default_rng(seed)
    is_target = rng.random(num_trials) < 0.3
    is_target[:2] = True, False
    scores = 2.0 * (rng.normal(size=num_trials) + 1.8 * is_target - 0.9)
    return scores if decimals is None else scores.round(decimals), is_target


RANDOM_TRIALS = [random_trials(seed, decimals) for seed in range(5) for decimals in (None, 1, 0)]
ANY_TRIALS = st.integers(0, 4).flatmap(
    lambda spread: st.tuples(
        st.lists(st.integers(-spread, 6), min_size=1, max_size=30),
        st.lists(st.integers(-6, spread), min_size=1, max_size=30),
    )
)


def exact_eer(far, frr):
    """The EER of a convex set of corners: the largest, over priors, of the least mixed error rate (a linear program).

    The largest lies where two corners tie, so every pair's prior is tried.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        gap = (frr - far)[:, None] - (frr - far)[None, :]
        prior = ((far[None, :] - far[:, None]) / gap).ravel()  # p frr + (1 - p) far equal for both corners
    prior = prior[(prior >= 0.0) & (prior <= 1.0)]
    return np.min(prior[:, None] * frr + (1.0 - prior[:, None]) * far, axis=1).max()


@pytest.mark.parametrize(
    "target, nontarget, expected_eer, expected_min_cllr",
    [
        ([2.0, 1.0], [1.0, 0.0], 0.25, 0.5),  # half of each kind is certain, half is a coin toss of 1 bit
        ([2.0, 0.0], [1.0, -1.0], 0.25, 0.5),  # 0 and 1 are the wrong way round: pooled; plain EER 0.5
        ([0.9, 0.8], [0.2, 0.1], 0.0, 0.0),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5, 1.0),  # all tied
        ([0.1, 0.2], [0.8, 0.9], 0.5, 1.0),  # the wrong way round: no monotone map helps
        ([3.0, 1.0, 1.0, 1.0], [1.0, 0.0], 0.3, None),  # hull from (FAR 1/2, FRR 0) to (0, 3/4)
    ],
)
def test_hull_eer_and_min_cllr_match_hand_computed_values(target, nontarget, expected_eer, expected_min_cllr):
    for order in (slice(None), slice(None, None, -1)):
        scores, is_target = as_trials(target, nontarget)
        assert rocch_eer(scores[order], is_target[order]) == pytest.approx(expected_eer, abs=1e-15)
        if expected_min_cllr is not None:
            assert min_cllr(scores[order], is_target[order]) == pytest.approx(expected_min_cllr, abs=1e-15)


def test_pav_bins_name_their_scores_counts_and_ratios():
    bins = pav_bins(error_rates(*as_trials([2.0, 0.0], [1.0, -1.0])))
    assert bins.lowest.tolist() == [-1.0, 0.0, 2.0] and bins.highest.tolist() == [-1.0, 1.0, 2.0]
    assert bins.num_target.tolist() == [0, 1, 1] and bins.num_nontarget.tolist() == [1, 1, 0]
    assert bins.llrs().tolist() == [-np.inf, 0.0, np.inf]


def test_cllr_matches_hand_computed_values():
    assert cllr(*as_trials([0.0], [0.0, 0.0])) == pytest.approx(1.0, abs=1e-15)
    assert cllr(*as_trials([np.log(3.0)], [-np.log(3.0)])) == pytest.approx(np.log2(4 / 3), abs=1e-15)
    one_sided = cllr(*as_trials([np.log(3.0), 0.0], [0.0]))  # (log2(4/3) + 1) / 2 for targets, 1 for the rest
    assert one_sided == pytest.approx((np.log2(4 / 3) + 3.0) / 4.0, abs=1e-15)
    assert cllr(*as_trials([-1e5], [1e5])) == pytest.approx(1e5 / np.log(2.0), rel=1e-12)  # no overflow


def test_act_dcf_decides_at_the_bayes_threshold_and_accepts_on_it():
    trials = as_trials([2.0, -1.0], [-3.0, 1.0])
    assert act_dcf(*trials, 0.5) == pytest.approx(1.0)  # threshold 0: half of each kind wrong
    assert act_dcf(*trials, 0.05) == pytest.approx(1.0)  # threshold ln 19: all rejected
    assert act_dcf(*trials, 0.5, c_miss=1.0, c_fa=np.exp(1.5)) == pytest.approx(0.5)  # threshold 1.5: one miss of two
    assert bayes_threshold(0.05) == pytest.approx(np.log(19.0), abs=1e-15)
    assert bayes_threshold(0.5, c_miss=10.0) == pytest.approx(-np.log(10.0), abs=1e-15)
    on_it = bayes_threshold(0.05)
    assert act_dcf(*as_trials([on_it], [np.nextafter(on_it, -9.0)]), 0.05) == 0.0
    assert act_dcf(*as_trials([-9.0], [9.0]), 0.05) == pytest.approx(20.0)  # 1 + 19: worse than deciding blindly


@pytest.mark.parametrize("trials", RANDOM_TRIALS)
def test_figures_agree_with_llreval(trials):
    llrs, is_target = trials
    peer = PAV(llrs, is_target.astype(int))
    bins = pav_bins(error_rates(llrs, is_target))
    peer_frr, peer_far = peer.rocch()
    assert exact_eer(peer_far, peer_frr) == pytest.approx(rocch_eer(llrs, is_target), abs=1e-9)
    assert ROCCH(peer).EER() == pytest.approx(bins.equal_error_rate(), abs=1e-5)  # its maximum is found numerically
    assert peer_cllr.min_cllr(peer) == pytest.approx(bins.min_cllr(), abs=1e-9)
    assert peer_cllr.cllr(llrs[is_target], llrs[~is_target]) == pytest.approx(cllr(llrs, is_target), abs=1e-9)
    log_odds = np.array([-4.59511985013459, -2.9444389791664403, 0.0, 1.0])  # p_target 0.01, 0.05, 0.5, 0.73
    error, blind, _, _ = fast_Bayes_error_rate(llrs, is_target.astype(int), log_odds, return_der_Pmiss_Pfa=True)
    least = ROCCH(peer).Bayes_error_rate(log_odds)
    for number, p_target in enumerate(1.0 / (1.0 + np.exp(-log_odds))):
        assert act_dcf(llrs, is_target, p_target) == pytest.approx(error[number] / blind[number], abs=1e-9)
        assert min_dcf(llrs, is_target, p_target)[0] == pytest.approx(least[number] / blind[number], abs=1e-9)


@pytest.mark.parametrize("trials", RANDOM_TRIALS)
def test_figures_agree_with_scikit_learn_and_scipy(trials):
    llrs, is_target = trials
    far, frr, _ = det_curve(is_target, llrs)
    corners = np.stack([np.append(far, [1.0, 0.0, 1.0]), np.append(frr, [0.0, 1.0, 1.0])], axis=1)
    corners = corners[np.unique(ConvexHull(corners).vertices)]
    corners = corners[corners.sum(axis=1) < 2.0]  # less the corner that only closed the hull
    assert exact_eer(*corners.T) == pytest.approx(rocch_eer(llrs, is_target), abs=1e-9)
    halves = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
    posterior = 1.0 / (1.0 + np.exp(-llrs))
    bits = log_loss(is_target, posterior, sample_weight=halves) / np.log(2.0)
    assert bits == pytest.approx(cllr(llrs, is_target), abs=1e-9)
    pooled = IsotonicRegression().fit(llrs, is_target, sample_weight=halves).predict(llrs)
    bits = log_loss(is_target, pooled, sample_weight=halves) / np.log(2.0)
    assert bits == pytest.approx(min_cllr(llrs, is_target), abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(ANY_TRIALS, st.floats(0.01, 0.99))
def test_the_best_calibration_bounds_every_other(kinds, p_target):
    scores, is_target = as_trials(*kinds)
    hull_eer = rocch_eer(scores, is_target)
    assert hull_eer <= equal_error_rate(scores, is_target)[0] + 1e-12
    assert 0.0 <= hull_eer <= 0.5 + 1e-12
    assert min_cllr(scores, is_target) <= min(1.0, cllr(scores, is_target)) + 1e-12
    assert min_dcf(scores, is_target, p_target)[0] <= act_dcf(scores, is_target, p_target) + 1e-12
    far, frr = pav_bins(error_rates(scores, is_target)).hull()
    blind = min(p_target, 1.0 - p_target)
    least = np.min(p_target * frr + (1.0 - p_target) * far) / blind
    assert least == pytest.approx(min_dcf(scores, is_target, p_target)[0], abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ANY_TRIALS, st.randoms(use_true_random=False))
def test_order_figures_ignore_trial_order_and_growing_transforms(kinds, random):
    scores, is_target = as_trials(*kinds)
    shuffled = np.array(random.sample(range(scores.size), scores.size))
    for other in ((scores[shuffled], is_target[shuffled]), (np.exp(scores) - 3.0, is_target)):
        assert rocch_eer(*other) == pytest.approx(rocch_eer(scores, is_target), abs=1e-12)
        assert min_cllr(*other) == pytest.approx(min_cllr(scores, is_target), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ANY_TRIALS)
def test_swapping_the_kinds_and_the_sign_keeps_symmetric_figures(kinds):
    scores, is_target = as_trials(*kinds)
    for figure in (cllr, rocch_eer, min_cllr):
        assert figure(-scores, ~is_target) == pytest.approx(figure(scores, is_target), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(ANY_TRIALS)
def test_pav_ratios_grow_and_their_own_cllr_is_min_cllr(kinds):
    bins = pav_bins(error_rates(*as_trials(*kinds)))
    assert (np.diff(bins.llrs()) > -1e-12).all()
    assert (bins.lowest <= bins.highest).all() and (bins.highest[:-1] < bins.lowest[1:]).all()
    llrs = np.clip(bins.llrs(), -60.0, 60.0)
    scores = np.repeat(np.append(llrs, llrs), np.append(bins.num_target, bins.num_nontarget))
    assert cllr(*as_trials(scores[: len(kinds[0])], scores[len(kinds[0]) :])) == pytest.approx(
        bins.min_cllr(), abs=1e-12
    )


def test_llr_summary_survives_strict_json_and_holds_the_figures_of_the_functions():
    trials = random_trials(7)
    figures = llr_summary(*trials, costs=(Cost(0.05), Cost(0.5)))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["cllr"] == cllr(*trials) and figures["min_cllr"] == min_cllr(*trials)
    assert figures["rocch_eer"] == rocch_eer(*trials)
    assert figures["act_dcf"][0] == {
        "value": act_dcf(*trials, 0.05), "p_target": 0.05, "c_miss": 1.0, "c_fa": 1.0, "threshold": np.log(19.0),
    }  # fmt: skip


@pytest.mark.parametrize("figure", [cllr, min_cllr, rocch_eer, llr_summary])
@pytest.mark.parametrize("llrs, labels, named", [
    ([0.1, np.nan], [1, 0], "trial 1 .*nan"), ([0.1, 0.2], [1, 1], "2 target and 0 non-target"),
    ([0.1, 0.2], [1, 2], "trial 1 .*label.*2"), ([0.1], [1, 0], r"\(1,\).*\(2,\)"), ([np.inf, 0.0], [1, 0], "trial 0"),
])  # fmt: skip
def test_bad_trials_raise_and_name_the_item(figure, llrs, labels, named):
    with pytest.raises(InputError, match=named):
        figure(np.array(llrs), np.array(labels))


def test_bad_costs_raise_and_are_named():
    with pytest.raises(InputError, match="p_target is 1.5"):
        act_dcf(*as_trials([1.0], [0.0]), 1.5)
    with pytest.raises(InputError, match="c_fa is -1"):
        bayes_threshold(0.5, c_fa=-1.0)


@pytest.mark.parametrize("max_far, num_nontarget, expected", [
    (0.01, 3000, "supported"), (0.01, 2999, "coarse"), (0.01, 300, "coarse"), (0.01, 299, "unsupported"),
    (0.0001, 18809, "unsupported"), (0.001, 18809, "coarse"), (0.0001, 300_000, "supported"),
    (0.0, 10**9, "unsupported"), (0.0003, 100_000, "supported"), (0.0003, 10_000, "coarse"),  # products just under
])  # fmt: skip
def test_support_follows_the_rules_of_3_and_30(max_far, num_nontarget, expected):
    assert far_support(max_far, num_nontarget) == expected


def test_frr_at_an_unsupported_far_is_withheld_with_the_number_of_trials_it_takes():
    rng = np.random.default_rng(0)
    rates = error_rates(*as_trials(rng.normal(3.0, 1.0, 500), rng.normal(0.0, 1.0, 4000)))
    supported, coarse, unsupported = supported_frr_at_far(rates)
    assert [entry.support for entry in (supported, coarse, unsupported)] == ["supported", "coarse", "unsupported"]
    assert (supported.frr, supported.threshold) == rates.frr_at_far(0.01) and supported.remark() == ""
    assert coarse.frr == rates.frr_at_far(0.001)[0] and "4.0 false accepts in 4,000" in coarse.remark()
    assert unsupported.frr is None and unsupported.threshold is None
    assert unsupported.needed_nontarget == 300_000 and "no FRR is given" in unsupported.remark()


def test_frr_where_only_rejecting_all_keeps_to_the_far_has_no_threshold():
    rates = error_rates(*as_trials([1.0], np.ones(300)))
    assert supported_frr_at_far(rates, [0.01])[0].frr == 1.0
    assert supported_frr_at_far(rates, [0.01])[0].threshold is None


@pytest.mark.parametrize("max_far", [0.0, -0.1, 1.5, np.nan])
def test_a_far_limit_that_is_no_rate_is_refused(max_far):
    with pytest.raises(InputError, match="max_far is"):
        supported_frr_at_far(error_rates(*as_trials([1.0], [0.0])), [max_far])
