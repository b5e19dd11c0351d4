"""Plots: any list is drawn, and curves, bins, intervals and points are where the numbers are."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.decomposition import PCA

from tests.picture_checks import TRIAL_LISTS, assert_saved_whole, legend_texts, trials
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.metrics.operating_points import PointResult
from voice_biometrics.report.plots import (
    Curve,
    calibration_bins,
    calibration_figure,
    det_figure,
    eers_figure,
    embedding_map_figure,
    roc_figure,
    score_histograms_figure,
)


def interval(estimate, lower, upper):
    return Interval(estimate, lower, upper, num_replicates=1000, num_degenerate=0, num_speakers=25)


BAND = {
    far: interval(*ends) for far, ends in {0.4: (0.04, 0, 0.08), 0.01: (0.4, 0.2, 0.5), 0.1: (0.1, 0.05, 0.2)}.items()
}
BAND[0.5] = interval(0.0, 0.0, 1.0)


def curve_of(scores, is_target, band=None):
    rates = error_rates(scores, is_target)
    eer = rates.equal_error_rate()[0]
    return Curve(rates, interval(eer, eer / 2, min(1.0, 2 * eer)), band or {})


def line_labelled(axes, text):
    return next(line for line in axes.lines if text in str(line.get_label()))


@pytest.mark.parametrize("name", TRIAL_LISTS)
@pytest.mark.parametrize("draw", [
    lambda scores, is_target: det_figure({"_$x$": curve_of(scores, is_target, BAND)}),
    lambda scores, is_target: roc_figure("_$x$", curve_of(scores, is_target, BAND), {}),
    lambda scores, is_target: score_histograms_figure(scores, is_target, {"EER": 0.5, "door": np.inf}),
    calibration_figure,
], ids=["det", "roc", "scores", "calibration"])  # fmt: skip
def test_any_list_of_trials_is_drawn(draw, name, tmp_path):
    assert_saved_whole(draw(*TRIAL_LISTS[name]), tmp_path)


def test_det_curves_pass_through_their_eers_and_systems_look_different():
    curves = {"strong": curve_of(*trials()), "weak": curve_of(*trials(distance=1.0))}
    figure = det_figure(curves)
    (axes,) = figure.axes
    assert axes.get_xlim() == axes.get_ylim() and "FAR (%)" in axes.get_xlabel() and "FRR (%)" in axes.get_ylabel()
    lines = [line_labelled(axes, name) for name in curves]
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 2
    for line, (name, curve), text in zip(lines, curves.items(), legend_texts(figure), strict=True):
        eer = curve.eer.estimate
        assert np.interp(eer, line.get_xdata(), line.get_ydata()) == pytest.approx(eer, abs=1e-3)
        assert f"{100 * eer:.2f} %" in text and name in text
    assert {line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"} == {
        curve.eer.estimate for curve in curves.values()
    }


def test_a_band_follows_its_intervals_and_ends_where_nothing_is_rejected():
    figure = det_figure({"plain": curve_of(*trials()), "banded": curve_of(*trials(), BAND)})
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    assert set(corners[:, 0].round(6)) == {0.01, 0.1, 0.4}
    assert set(corners[np.isclose(corners[:, 0], 0.1), 1].round(6)) == {0.05, 0.2}
    assert sum("95 % interval" in text for text in legend_texts(figure)) == 1


def test_roc_is_the_lowest_frr_that_keeps_to_each_far():
    scores, is_target = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.array([0, 1, 0, 1, 0, 1], bool)
    (axes,) = roc_figure("six", curve_of(scores, is_target), {}).axes
    line = line_labelled(axes, "six")
    for far, frr in ((0.15, 2 / 3), (0.3, 2 / 3), (0.34, 1 / 3), (0.6, 1 / 3), (0.7, 0.0), (1.0, 0.0)):
        assert line.get_ydata()[np.searchsorted(line.get_xdata(), far)] == pytest.approx(frr)
    assert axes.get_xscale() == "log"


def test_roc_shades_unsupported_fars_and_marks_operating_points_with_their_intervals():
    points = {
        use: PointResult(1.0, interval(far, far / 2, 2 * far), interval(frr, frr / 2, 1.5 * frr), 1, 1, 200, 2000)
        for use, far, frr in (("smart $peaker", 0.01, 0.2), ("door", 0.0, 0.4))
    }
    figure = roc_figure("usual", curve_of(*trials(), BAND), points)
    (axes,) = figure.axes
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert spans == [pytest.approx((1 / 2000, 3 / 2000)), pytest.approx((3 / 2000, 30 / 2000))]
    marked = [container.lines[0] for container in axes.containers]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in marked] == [(0.01, 0.2), (1 / 2000, 0.4)]  # on the edge
    horizontal, vertical = (bars.get_segments()[0] for bars in axes.containers[0].lines[2])
    assert horizontal[:, 0] == pytest.approx([0.005, 0.02]) and vertical[:, 1] == pytest.approx([0.1, 0.3])
    texts = " ".join(legend_texts(figure))
    assert r"smart \$peaker: FAR 1 %, FRR 20 %" in texts and "0.15 %" in texts and "2,000" in texts


def test_histograms_are_densities_with_counts_and_reachable_thresholds():
    figure = score_histograms_figure(*trials(), {"EER": 1.25, "vault": np.inf})
    (axes,) = figure.axes
    for patch in axes.patches:  # one closed outline per kind
        x, y = patch.get_xy().T
        assert 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) == pytest.approx(1.0)
    assert [line.get_xdata()[0] for line in axes.lines] == [1.25] and len(axes.patches) == 2
    assert any("2,000" in text for text in legend_texts(figure))


def honest(num_target=20_000, num_nontarget=20_000):
    """Return scores of two normal distributions a distance of 2 apart: 2 x is then the log-likelihood ratio."""
    rng = np.random.default_rng(0)
    is_target = np.arange(num_target + num_nontarget) < num_target
    return 2.0 * (rng.normal(size=is_target.size) + np.where(is_target, 1.0, -1.0)), is_target


def test_calibration_bins_match_hand_counts():
    llrs = np.repeat([-1.0, 0.5, 2.0], [4, 4, 4])  # 1, 2 and 3 targets of 4
    is_target = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], bool)
    order = np.random.default_rng(0).permutation(12)
    bins = calibration_bins(llrs[order], is_target[order], num_bins=3)
    assert bins.stated == pytest.approx([-1.0, 0.5, 2.0])
    assert bins.observed == pytest.approx([np.log(1 / 3), 0.0, np.log(3.0)])  # half of all are targets
    assert bins.num_trials.tolist() == [4, 4, 4]
    for number, num_targets in enumerate((1, 2, 3)):
        expected = binomtest(num_targets, 4).proportion_ci(0.95, method="exact")
        assert expit([bins.lower[number], bins.upper[number]]) == pytest.approx([expected.low, expected.high])
    useless = calibration_bins(np.full(10, 0.3), np.arange(10) < 2)
    assert useless.observed == pytest.approx([0.0], abs=1e-12) and useless.stated == pytest.approx([0.3])


def test_calibrated_llrs_are_on_the_diagonal_and_stretched_ones_are_not():
    llrs, is_target = honest(num_nontarget=100_000)
    bins = calibration_bins(llrs, is_target)
    inside = (bins.lower <= bins.stated) & (bins.stated <= bins.upper)
    assert inside.mean() >= 0.8 and inside.size == 20
    stretched = calibration_bins(2.0 * llrs, is_target)
    assert np.polyfit(stretched.stated, stretched.observed, 1)[0] == pytest.approx(0.5, abs=0.1)
    far = calibration_bins(np.array([-2000.0, -1000.0, 1000.0, 2000.0]), np.array([0, 0, 1, 1], bool), 2)
    assert far.stated == pytest.approx([-1000.0 - np.log(2), 1000.0 + np.log(2)], abs=1.0)  # beyond any probability


def test_calibration_bins_have_equal_weight_and_do_not_split_ties():
    llrs, is_target = honest(1_000, 30_000)
    weight = np.where(is_target, 0.5 / 1_000, 0.5 / 30_000)[np.argsort(llrs)]
    ends = np.cumsum(calibration_bins(llrs, is_target, 10).num_trials)
    assert np.cumsum(weight)[ends - 1] == pytest.approx(np.arange(1, 11) / 10, abs=1e-3)
    tie_ends = np.cumsum(np.unique(llrs.round(), return_counts=True)[1])
    tied = calibration_bins(llrs.round(), is_target, 10).num_trials
    assert set(np.cumsum(tied)) <= set(tie_ends) and 5 <= tied.size <= 10


def test_the_calibration_plot_holds_the_bins_and_one_sided_ones_are_at_the_edge():
    llrs, is_target = honest()
    bins, top = calibration_bins(llrs, is_target), calibration_figure(llrs, is_target).axes[0]
    dots = line_labelled(top, "bins")
    assert np.array_equal(dots.get_xdata(), bins.stated) and np.array_equal(dots.get_ydata(), bins.observed)
    top = calibration_figure(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0, 0, 1, 1], bool)).axes[0]
    assert set(line_labelled(top, "bins").get_ydata()) == set(top.get_ylim())


def test_eers_have_their_rows_intervals_and_words(tmp_path):
    overall = interval(0.06, 0.04, 0.09)
    panels = {
        "gender": [("f", interval(0.07, 0.03, 0.12), "11 speakers"), ("m", interval(0.05, 0.0, 1.0), "")],
        "a column with $ $": [("", None, "1 speaker"), ("word " * 20, overall, "")],
    }
    figure = eers_figure(panels, ("all trials", overall))
    first, second = figure.axes
    words = [label.get_text() for axes in (first, second) for label in axes.child_axes[0].get_yticklabels()]
    assert "7.00 % (3.00 to 12.00)" in words[0] and "11 speakers" in words[0] and words[2].startswith("–")
    names = [label.get_text() for axes in (first, second) for label in axes.get_yticklabels()]
    assert names[:3] == ["f", "m", "(none)"] and len(names[3]) <= 36
    (dots,) = first.containers
    assert dots.lines[0].get_xdata().tolist() == [0.07, 0.05]
    assert dots.lines[2][0].get_segments()[0][:, 0] == pytest.approx([0.03, 0.12])
    assert first.get_xlim()[1] < 0.2 and "6.00 % (4.00 to 9.00)" in legend_texts(figure)[0]  # 1.0: nothing is known
    assert_saved_whole(figure, tmp_path)


def voices(num_speakers, per_speaker=6, dims=16):
    rng = np.random.default_rng(0)
    embeddings = np.repeat(rng.normal(size=(num_speakers, dims)), per_speaker, axis=0)
    embeddings = embeddings + 0.1 * rng.normal(size=embeddings.shape)
    return embeddings, np.repeat([f"id{number:05d}" for number in range(num_speakers)], per_speaker)


def test_the_map_of_embeddings_is_an_independent_pca_of_their_directions():
    embeddings, speakers = voices(3)
    axes = embedding_map_figure(embeddings * np.linspace(1, 9, len(embeddings))[:, None], speakers).axes[0]
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    reference = PCA(2).fit(directions)
    drawn = np.concatenate([line.get_xydata() for line in axes.lines])
    assert np.abs(drawn) == pytest.approx(np.abs(reference.transform(directions)), abs=1e-9)
    assert f"{100 * reference.explained_variance_ratio_[0]:.0f} % of the variance" in axes.get_xlabel()


@pytest.mark.parametrize("num_speakers", [1, 56, 57])
def test_speakers_on_the_map_look_different_as_far_as_that_is_possible(num_speakers, tmp_path):
    figure = embedding_map_figure(*voices(num_speakers))
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(legend_texts(figure)) == (num_speakers if num_speakers <= 56 else 1)
    assert_saved_whole(figure, tmp_path)
