"""The calibration picture: bins are counted rightly, honest ratios lie on the diagonal, others do not."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.picture_checks import TRIAL_LISTS, assert_whole_png, legend_texts
from voice_biometrics.common.errors import InputError
from voice_biometrics.report.plots import calibration_bins, calibration_figure, plot_calibration


def honest(num_target=20_000, num_nontarget=20_000):
    """Scores of two normals a distance of 2 apart: 2 x is then the log-likelihood ratio."""
    rng = np.random.default_rng(0)
    is_target = np.arange(num_target + num_nontarget) < num_target
    return 2.0 * (rng.normal(size=is_target.size) + np.where(is_target, 1.0, -1.0)), is_target


@pytest.mark.parametrize("name", TRIAL_LISTS)
def test_any_list_is_drawn_whole(name, tmp_path):
    plot_calibration(*TRIAL_LISTS[name], tmp_path / "calibration.png")
    assert_whole_png(tmp_path / "calibration.png")


def test_bins_match_hand_counts():
    llrs = np.repeat([-1.0, 0.5, 2.0], [4, 4, 4])  # 1, 2 and 3 targets of 4
    is_target = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], bool)
    order = np.random.default_rng(0).permutation(12)
    bins = calibration_bins(llrs[order], is_target[order], num_bins=3)
    assert bins.stated == pytest.approx([-1.0, 0.5, 2.0])
    assert bins.observed == pytest.approx([np.log(1 / 3), 0.0, np.log(3.0)])  # half of all are targets
    assert bins.num_trials.tolist() == [4, 4, 4]
    for number, num_targets in enumerate((1, 2, 3)):
        expected = binomtest(num_targets, 4).proportion_ci(0.95, method="exact")
        shares = 1.0 / (1.0 + np.exp(-np.array([bins.lower[number], bins.upper[number]])))
        assert shares == pytest.approx([expected.low, expected.high])


def test_observed_ratios_are_freed_of_the_share_of_targets():
    llrs, is_target = np.array([0.3] * 10), np.arange(10) < 2  # as useless as the ratio 1
    bins = calibration_bins(llrs, is_target)
    assert bins.observed == pytest.approx([0.0], abs=1e-12) and bins.stated == pytest.approx([0.3])


@pytest.mark.parametrize("num_nontarget", [20_000, 200_000])
def test_honest_ratios_lie_on_the_diagonal_and_stretched_ones_do_not(num_nontarget):
    llrs, is_target = honest(num_nontarget=num_nontarget)
    bins = calibration_bins(llrs, is_target)
    inside = (bins.lower <= bins.stated) & (bins.stated <= bins.upper)
    assert inside.mean() >= 0.8 and inside.size == 20
    stretched = calibration_bins(2.0 * llrs, is_target)
    steep = np.polyfit(stretched.stated, stretched.observed, 1)[0]
    assert steep == pytest.approx(0.5, abs=0.1)


def test_bins_weigh_alike_and_ties_are_not_parted():
    llrs, is_target = honest(1_000, 30_000)
    weight = np.where(is_target, 0.5 / 1_000, 0.5 / 30_000)
    bins = calibration_bins(llrs, is_target, 10)
    ends = np.cumsum(bins.num_trials)
    assert np.cumsum(weight[np.argsort(llrs)])[ends - 1] == pytest.approx(np.arange(1, 11) / 10, abs=1e-3)
    tie_ends = np.cumsum(np.unique(llrs.round(), return_counts=True)[1])
    bins = calibration_bins(llrs.round(), is_target, 10)
    assert set(np.cumsum(bins.num_trials)) <= set(tie_ends) and 5 <= bins.num_trials.size <= 10


def test_ratios_beyond_what_a_probability_can_hold_stay_finite():
    bins = calibration_bins(np.array([-2000.0, -1000.0, 1000.0, 2000.0]), np.array([0, 0, 1, 1], bool), 2)
    assert bins.stated == pytest.approx([-1000.0 - np.log(2), 1000.0 + np.log(2)], abs=1.0)


def test_bad_trials_are_told():
    with pytest.raises(InputError, match="target"):
        calibration_figure(np.array([1.0, 2.0]), np.array([True, True]))


def test_picture_holds_the_bins_the_diagonal_whiskers_and_both_densities():
    llrs, is_target = honest()
    bins = calibration_bins(llrs, is_target)
    figure = calibration_figure(llrs, is_target)
    top, below = figure.axes
    diagonal, dots = top.lines[:2]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert np.array_equal(dots.get_xdata(), bins.stated) and np.array_equal(dots.get_ydata(), bins.observed)
    (whiskers,) = top.collections
    ends = np.array([segment[:, 1] for segment in whiskers.get_segments()])
    assert ends == pytest.approx(np.stack([bins.lower, bins.upper], axis=1))
    assert top.get_xlim() == top.get_ylim() == below.get_xlim() and len(below.patches) == 2
    assert "ratio" in top.get_ylabel() and "ratio" in below.get_xlabel() and "density" in below.get_ylabel()
    assert "non-target (20,000 trials)" in legend_texts(figure)


def test_bins_of_one_kind_are_arrows_on_the_edge():
    llrs, is_target = np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0, 0, 1, 1], bool)
    figure = calibration_figure(llrs, is_target)
    top = figure.axes[0]
    arrows = {line.get_marker(): line for line in top.lines if line.get_marker() in ("^", "v")}
    assert arrows["^"].get_ydata().tolist() == [top.get_ylim()[1]] * 2
    assert arrows["v"].get_ydata().tolist() == [top.get_ylim()[0]] * 2
    assert {"targets only: off the scale", "non-targets only: off the scale"} <= set(legend_texts(figure))


@pytest.mark.parametrize("stretch", [0.1, 1.0, 4.0, 30.0])
def test_ticks_of_probability_stand_where_the_ratio_says_and_never_overlap(stretch):
    llrs, is_target = honest(2_000, 2_000)
    figure = calibration_figure(stretch * llrs, is_target)
    figure.draw_without_rendering()
    (second,) = [axes for axes in figure.axes[0].child_axes if "probability" in axes.get_xlabel()]
    ticks = sorted(zip(second.get_xticks(), [label.get_text() for label in second.get_xticklabels()], strict=True))
    assert (0.0, "50") in ticks
    for place, text in ticks:
        assert 100.0 / (1.0 + np.exp(-place)) == pytest.approx(float(text), rel=1e-4)
    boxes = [label.get_window_extent() for label in second.get_xticklabels()]
    boxes.sort(key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
