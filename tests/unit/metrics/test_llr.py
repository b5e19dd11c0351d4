"""C_llr, minC_llr and the EER on the hull: hand-computed, against llreval, scikit-learn and SciPy, invariants."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from llreval import cllr as peer_cllr
from llreval.pav_rocch import PAV, ROCCH
from scipy.spatial import ConvexHull
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import det_curve, log_loss

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import equal_error_rate, error_rates
from voice_biometrics.metrics.llr import PavBins, bayes_threshold, cllr


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


def bins_of(scores, is_target):
    return PavBins.of(error_rates(scores, is_target))


RANDOM_TRIALS = [random_trials(seed, decimals) for seed, decimals in enumerate((None, 1, 0, None))]
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


def test_hull_eer_and_min_cllr_match_hand_computed_values():
    for target, nontarget, expected_eer, expected_min_cllr in [
        ([2.0, 1.0], [1.0, 0.0], 0.25, 0.5),  # half of each kind is certain, half is a coin toss of 1 bit
        ([2.0, 0.0], [1.0, -1.0], 0.25, 0.5),  # 0 and 1 are the wrong way round: pooled; plain EER 0.5
        ([0.9, 0.8], [0.2, 0.1], 0.0, 0.0),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.5, 1.0),  # all tied
        ([0.1, 0.2], [0.8, 0.9], 0.5, 1.0),  # the wrong way round: no monotone map helps
        ([3.0, 1.0, 1.0, 1.0], [1.0, 0.0], 0.3, None),  # hull from (FAR 1/2, FRR 0) to (0, 3/4)
    ]:
        scores, is_target = as_trials(target, nontarget)
        for order in (slice(None), slice(None, None, -1)):
            bins = bins_of(scores[order], is_target[order])
            assert bins.equal_error_rate() == pytest.approx(expected_eer, abs=1e-15)
            assert expected_min_cllr is None or bins.min_cllr() == pytest.approx(expected_min_cllr, abs=1e-15)


def test_scores_the_wrong_way_round_are_pooled():
    bins = bins_of(*as_trials([2.0, 0.0], [1.0, -1.0]))
    assert bins.num_target.tolist() == [0, 1, 1] and bins.num_nontarget.tolist() == [1, 1, 0]


def test_cllr_and_bayes_threshold_match_hand_computed_values():
    assert cllr(*as_trials([0.0], [0.0, 0.0])) == pytest.approx(1.0, abs=1e-15)
    assert cllr(*as_trials([np.log(3.0)], [-np.log(3.0)])) == pytest.approx(np.log2(4 / 3), abs=1e-15)
    one_sided = cllr(*as_trials([np.log(3.0), 0.0], [0.0]))  # (log2(4/3) + 1) / 2 for targets, 1 for the rest
    assert one_sided == pytest.approx((np.log2(4 / 3) + 3.0) / 4.0, abs=1e-15)
    assert cllr(*as_trials([-1e5], [1e5])) == pytest.approx(1e5 / np.log(2.0), rel=1e-12)  # no overflow
    assert bayes_threshold(0.05) == pytest.approx(np.log(19.0), abs=1e-15)
    assert bayes_threshold(0.5, c_miss=10.0) == pytest.approx(-np.log(10.0), abs=1e-15)


def test_figures_agree_with_llreval_scikit_learn_and_scipy():
    for llrs, is_target in RANDOM_TRIALS:
        bins, peer = bins_of(llrs, is_target), PAV(llrs, is_target.astype(int))
        peer_frr, peer_far = peer.rocch()
        assert exact_eer(peer_far, peer_frr) == pytest.approx(bins.equal_error_rate(), abs=1e-9)
        assert peer_cllr.min_cllr(peer) == pytest.approx(bins.min_cllr(), abs=1e-9)
        assert peer_cllr.cllr(llrs[is_target], llrs[~is_target]) == pytest.approx(cllr(llrs, is_target), abs=1e-9)
        log_odds = np.array([-4.59511985013459, -2.9444389791664403, 0.0, 1.0])  # p_target 0.01, 0.05, 0.5, 0.73
        least = ROCCH(peer).Bayes_error_rate(log_odds)
        for number, p_target in enumerate(1.0 / (1.0 + np.exp(-log_odds))):
            expected = least[number] / min(p_target, 1.0 - p_target)
            assert error_rates(llrs, is_target).min_dcf(p_target)[0] == pytest.approx(expected, abs=1e-9)
        far, frr, _ = det_curve(is_target, llrs)
        corners = np.stack([np.append(far, [1.0, 0.0, 1.0]), np.append(frr, [0.0, 1.0, 1.0])], axis=1)
        corners = corners[np.unique(ConvexHull(corners).vertices)]
        corners = corners[corners.sum(axis=1) < 2.0]  # without the corner that only closed the hull
        assert exact_eer(*corners.T) == pytest.approx(bins.equal_error_rate(), abs=1e-9)
        halves = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
        pooled = IsotonicRegression().fit(llrs, is_target, sample_weight=halves).predict(llrs)
        for posterior, ours in ((1.0 / (1.0 + np.exp(-llrs)), cllr(llrs, is_target)), (pooled, bins.min_cllr())):
            assert log_loss(is_target, posterior, sample_weight=halves) / np.log(2.0) == pytest.approx(ours, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(ANY_TRIALS, st.randoms(use_true_random=False))
def test_the_best_calibration_bounds_every_other_and_ignores_order_and_growing_transforms(kinds, random):
    scores, is_target = as_trials(*kinds)
    bins = bins_of(scores, is_target)
    assert 0.0 <= bins.equal_error_rate() <= min(0.5, equal_error_rate(scores, is_target)[0]) + 1e-12
    assert bins.min_cllr() <= min(1.0, cllr(scores, is_target)) + 1e-12
    odds = bins.num_target / np.maximum(bins.num_nontarget, 1e-9)
    assert (np.diff(odds) > 0.0).all() and (bins.num_target + bins.num_nontarget > 0).all()
    shuffled = np.array(random.sample(range(scores.size), scores.size))
    swapped = -scores, ~is_target
    for other in ((scores[shuffled], is_target[shuffled]), (np.exp(scores) - 3.0, is_target), swapped):
        found = bins_of(*other)
        assert found.equal_error_rate() == pytest.approx(bins.equal_error_rate(), abs=1e-12)
        assert found.min_cllr() == pytest.approx(bins.min_cllr(), abs=1e-12)
    assert cllr(*swapped) == pytest.approx(cllr(scores, is_target), abs=1e-12)


def test_bad_ratios_and_costs_raise_and_are_named():
    with pytest.raises(InputError, match=r"trial 1 .*nan"):
        cllr(np.array([0.1, np.nan]), np.array([1, 0]))
    with pytest.raises(InputError, match="p_target is 1.5"):
        bayes_threshold(1.5)
    with pytest.raises(InputError, match="c_fa is -1"):
        bayes_threshold(0.5, c_fa=-1.0)
