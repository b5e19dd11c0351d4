"""Histograms: exact at the edges of bins, and within the bounds that they give."""

import numpy as np
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.error_rates import Cost, error_rates
from voice_biometrics.metrics.histograms import BIN_WIDTH, NUM_BINS, ScoreHistogram, count_scores


def test_scores_are_counted_in_their_bins_and_rounding_errors_in_the_outer_ones():
    counts = count_scores(np.array([-1.0000001, -1.0, -1e-9, 0.0, BIN_WIDTH, 0.9999999, 1.0, 1.0000001], np.float32))
    expected = {0: 2, NUM_BINS // 2 - 1: 1, NUM_BINS // 2: 1, NUM_BINS // 2 + 1: 1, NUM_BINS - 1: 3}
    assert {int(place): int(counts[place]) for place in np.flatnonzero(counts)} == expected
    assert NUM_BINS >= 65_536


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_the_scores_are_within_the_bounds(seed):
    rng = np.random.default_rng(seed)
    target, nontarget = rng.normal(0.5, 0.15, 2_000).clip(-1, 1), rng.normal(0.0, 0.15, 300_000).clip(-1, 1)
    histogram = ScoreHistogram(count_scores(target.copy()), count_scores(nontarget.copy()))
    exact = error_rates(np.concatenate([target, nontarget]), np.arange(302_000) < 2_000)
    found = histogram.summary(fars=[0.01])
    assert found["eer_bounds"][0] <= exact.equal_error_rate()[0] <= found["eer_bounds"][1]
    assert found["eer_bounds"][1] - found["eer_bounds"][0] < 1e-3
    for cost, entry in zip((Cost(0.01), Cost(0.05)), found["min_dcf"], strict=True):
        assert entry["bounds"][0] <= exact.min_dcf(*cost)[0] <= entry["bounds"][1] == entry["value"]
        assert entry["bounds"][1] - entry["bounds"][0] < 5e-3
    assert found["frr_at_far"][0]["frr"] == pytest.approx(exact.frr_at_far(0.01)[0], abs=1e-3)


def test_rates_at_the_edges_are_exact():
    scores = np.round(np.random.default_rng(0).uniform(-1, 0.999, 1000) / BIN_WIDTH) * BIN_WIDTH
    is_target = scores > np.random.default_rng(1).uniform(-1, 1, 1000)
    histogram = ScoreHistogram(count_scores(scores[is_target]), count_scores(scores[~is_target]))
    exact, found = error_rates(scores, is_target), histogram.rates()
    for name in ("thresholds", "far", "frr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(exact, name))


def test_one_kind_of_trials_alone_has_no_error_rates():
    with pytest.raises(InputError, match="3 target and 0 non-target"):
        ScoreHistogram(count_scores(np.zeros(3)), count_scores(np.zeros(0)))
