"""DET curves and the ROC near zero: scales, EERs, bands, shading and marked points are where the numbers say."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.special import ndtri

from tests.picture_checks import TRIAL_LISTS, assert_whole_png, legend_texts, trials
from voice_biometrics.metrics.bootstrap import Interval, band_fars
from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.metrics.operating_points import PointResult
from voice_biometrics.report.plots import Band, DetCurve, det_figure, plot_det, plot_roc_near_zero, roc_near_zero_figure

BAND = Band(np.array([0.01, 0.1, 0.4]), np.array([0.2, 0.05, 0.0]), np.array([0.5, 0.2, 0.08]))


def curve_of(label, scores, is_target, band=None):
    return DetCurve.of(label, error_rates(scores, is_target), band)


def interval(estimate, lower, upper):
    return Interval(estimate, lower, upper, num_replicates=1000, num_degenerate=0, num_speakers=25)


def point(far, frr):
    rates = interval(far, far / 2, 2 * far), interval(frr, frr / 2, 2 * frr)
    return PointResult(1.0, *rates, num_false_accepts=1, num_false_rejects=1, num_target=200, num_nontarget=2000)


def band_corners(axes):
    """Return the band's corners, (corners, 2) in data."""
    (band,) = axes.collections
    return band.get_paths()[0].vertices


@pytest.mark.parametrize("name", TRIAL_LISTS)
def test_both_pictures_are_written_whole_for_any_list(name, tmp_path):
    curve = curve_of(name, *TRIAL_LISTS[name])
    (tmp_path / "det").mkdir()
    plot_det([curve], tmp_path / "det" / "det.png")
    assert_whole_png(tmp_path / "det" / "det.png")
    (tmp_path / "roc").mkdir()
    plot_roc_near_zero([curve], int((~TRIAL_LISTS[name][1]).sum()), {}, tmp_path / "roc" / "roc.png")
    assert_whole_png(tmp_path / "roc" / "roc.png")


def test_a_curve_takes_its_eer_from_the_rates():
    scores, is_target = trials()
    rates = error_rates(scores, is_target)
    curve = DetCurve.of("a", rates)
    assert (curve.label, curve.eer, curve.band) == ("a", rates.equal_error_rate()[0], None)
    assert np.array_equal(curve.far, rates.far) and np.array_equal(curve.frr, rates.frr)


def test_a_band_is_sorted_by_far_and_ends_where_nothing_is_rejected():
    band = Band.of({0.1: interval(0.2, 0.1, 0.3), 0.01: interval(0.4, 0.3, 0.6), 0.5: interval(0.0, 0.0, 0.12)})
    assert band.far.tolist() == [0.01, 0.1]
    assert band.lower.tolist() == [0.3, 0.1] and band.upper.tolist() == [0.6, 0.3]
    assert Band.of({0.5: interval(0.0, 0.0, 0.12)}).far.size == 0


def test_band_fars_go_from_what_3_errors_support_to_a_half():
    fars = band_fars(3000, 5)
    assert fars[0] == pytest.approx(0.001) and fars[-1] == pytest.approx(0.5) and len(fars) == 5
    assert np.diff(ndtri(fars)) == pytest.approx(np.full(4, ndtri(0.5) / 4 - ndtri(0.001) / 4))
    assert 0.0 < band_fars(2)[0] < 0.5


def test_det_has_normal_deviate_axes_in_per_cent_the_diagonal_and_each_eer():
    strong, weak = curve_of("strong", *trials()), curve_of("_weak $5 mic$", *trials(distance=1.0))
    figure = det_figure([strong, weak])
    (axes,) = figure.axes
    ticks = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert ticks["5"] == pytest.approx(ndtri(0.05)) and ticks["40"] == pytest.approx(ndtri(0.4))
    assert axes.get_xlim() == axes.get_ylim()
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    for dot, curve in zip(dots, (strong, weak), strict=True):
        eer = curve.eer
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (pytest.approx(ndtri(eer)), pytest.approx(ndtri(eer)))
    diagonal = axes.lines[0]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert legend_texts(figure) == [
        f"EER {100 * strong.eer:.2f} %: strong",
        rf"EER {100 * weak.eer:.2f} %: _weak \$5 mic\$",
    ]


@pytest.mark.parametrize("name", [name for name in TRIAL_LISTS if name != "wrong way round"])
def test_det_line_passes_through_its_eer_point(name):
    (axes,) = det_figure([curve_of(name, *TRIAL_LISTS[name])]).axes
    line, dot = axes.lines[1], axes.lines[2]
    distance = np.hypot(line.get_xdata() - dot.get_xdata()[0], line.get_ydata() - dot.get_ydata()[0])
    assert distance.min() < 0.1  # of about 5 on these axes


@pytest.mark.parametrize(
    "name, said",
    [("separated", ["EER below the scale"]), ("usual", []), ("wrong way round", ["EER above the scale"])],
)
def test_det_says_so_when_the_eer_lies_off_its_scale(name, said):
    (axes,) = det_figure([curve_of(name, *TRIAL_LISTS[name])]).axes
    assert [text.get_text() for text in axes.texts] == said
    assert np.isfinite(axes.lines[2].get_xdata()).all()


def test_det_of_many_trials_draws_few_points():
    (axes,) = det_figure([curve_of("many", *trials(50_000, 150_000))]).axes
    assert 100 < len(axes.lines[1].get_xdata()) < 10_000


def test_det_band_lies_between_its_ends_in_the_colour_of_its_curve_and_is_explained():
    plain, banded = curve_of("plain", *trials()), curve_of("banded", *trials(), BAND)
    figure = det_figure([plain, banded])
    (axes,) = figure.axes
    corners = band_corners(axes)
    for far, lower, upper in zip(BAND.far, BAND.lower, BAND.upper, strict=True):
        at_far = corners[np.isclose(corners[:, 0], ndtri(far)), 1]
        assert at_far.max() == pytest.approx(ndtri(upper))
        assert at_far.min() == pytest.approx(ndtri(lower) if lower else axes.get_ylim()[0])  # 0 runs along the edge
    line = axes.lines[3]  # diagonal, plain, its dot, banded
    assert to_rgb(axes.collections[0].get_facecolor()[0][:3]) == pytest.approx(to_rgb(line.get_color()))
    assert [("95 % interval" in text) for text in legend_texts(figure)] == [False, False, True]
    assert not any("interval" in text for text in legend_texts(det_figure([plain])))


def test_overlaid_systems_differ_in_colour_and_in_line_style():
    (axes,) = det_figure([curve_of(str(number), *trials()) for number in range(4)]).axes
    lines = [line for line in axes.lines[1:] if line.get_marker() in ("", "None")]
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == len(lines) == 4


def test_roc_shows_the_lowest_frr_that_keeps_to_each_far():
    scores, is_target = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.array([0, 1, 0, 1, 0, 1], bool)
    (axes,) = roc_near_zero_figure([curve_of("six", scores, is_target)], 3).axes
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-pre" and axes.get_xscale() == "log"
    drawn = dict(zip(line.get_xdata().round(6), line.get_ydata().round(6), strict=True))
    assert drawn[100.0] == 0.0 and drawn[66.666667] == pytest.approx(100 / 3, abs=1e-5)
    assert line.get_ydata()[-1] == pytest.approx(200 / 3)  # on the edge: what a FAR under one in three costs
    assert "FAR (%)" in axes.get_xlabel() and "FRR (%)" in axes.get_ylabel()


def test_roc_shades_what_the_trials_do_not_support_and_says_the_limits():
    figure = roc_near_zero_figure([curve_of("usual", *trials())], 2000)
    (axes,) = figure.axes
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert spans == [pytest.approx((0.05, 0.15)), pytest.approx((0.15, 1.5))]  # per cent: 1, 3 and 30 of 2,000
    assert axes.get_xlim() == pytest.approx((0.05, 100.0))
    assert legend_texts(figure)[1:] == [
        "not supported: below 0.15 % are fewer than 3 of 2,000 non-target trials",
        "known coarsely: below 1.5 % are fewer than 30 of 2,000 non-target trials",
    ]


def test_roc_marks_operating_points_with_name_rates_and_intervals():
    points = {"smart $peaker": point(0.01, 0.2), "door": point(0.0, 0.4)}
    figure = roc_near_zero_figure([curve_of("usual", *trials(), BAND)], 2000, points)
    (axes,) = figure.axes
    markers = [line for line in axes.lines if line.get_marker() not in ("", "None")]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in markers] == [
        pytest.approx((1.0, 20.0)),
        pytest.approx((0.05, 40.0)),  # no false accept: on the left edge
    ]
    assert [text.get_text() for text in axes.texts] == [r"smart \$peaker", "door"]
    assert r"smart \$peaker: FAR 1 %, FRR 20 %" in legend_texts(figure)
    assert "door: FAR 0 %, FRR 40 %" in legend_texts(figure)
    whiskers = [(line.get_xdata(), line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 2][:2]
    assert whiskers[0][0] == pytest.approx([0.5, 2.0]) and whiskers[1][1] == pytest.approx([10.0, 40.0])
    assert axes.lines[0].get_color() not in {line.get_color() for line in markers}


@pytest.mark.parametrize("band", [Band.of({}), Band.of({0.1: interval(0.2, np.nan, np.nan)})])
def test_a_band_of_which_nothing_is_known_leaves_the_curve(band):
    curve = curve_of("usual", *trials(), band)
    (roc,) = roc_near_zero_figure([curve], 2000).axes
    assert 0.0 < roc.get_ylim()[1] <= 102.0
    (det,) = det_figure([curve]).axes
    assert np.isfinite(det.lines[1].get_xdata()).all()


def test_roc_scale_holds_the_curve_and_the_band():
    (axes,) = roc_near_zero_figure([curve_of("usual", *trials(), BAND)], 2000).axes
    assert axes.get_ylim()[1] > max(50.0, axes.lines[0].get_ydata().max())
