"""Pictures: each is a whole PNG, and what it must show is really drawn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from voice_biometrics.metrics import error_rates
from voice_biometrics.plots import (
    curves_figure,
    det_figure,
    plot_curves,
    plot_det,
    plot_score_histograms,
    score_histograms_figure,
)

EPOCHS = [
    {"epoch": 1, "train_loss": 9.0, "eer": 0.2},
    {"epoch": 2, "train_loss": 5.0, "eer": 0.0825},
    {"epoch": 3, "train_loss": 4.0, "eer": 0.1},
]


def trials(num_target=200, num_nontarget=2000, distance=2.0):
    rng = np.random.default_rng(0)
    is_target = np.arange(num_target + num_nontarget) < num_target
    return rng.normal(size=is_target.size) + distance * is_target, is_target


def det_curve_of(label, scores, is_target):
    rates = error_rates(scores, is_target)
    return label, rates.far, rates.frr, rates.equal_error_rate()[0]


LISTS = {
    "usual": trials(),
    "tiny": trials(2, 3, 1.0),
    "one of each": trials(1, 1),
    "separated": trials(20, 20, 100.0),
    "wrong way round": trials(20, 20, -100.0),
    "tied": (np.full(8, 0.25), np.arange(8) < 3),
}


def texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def assert_whole_png(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") and b"IEND" in content[-12:]
    assert len(content) > 5000
    assert [found.name for found in path.parent.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("rows", [EPOCHS, EPOCHS[:1], [{**row, "eer": None} for row in EPOCHS]])
def test_curves_are_written_whole(rows, tmp_path):
    plot_curves(rows, tmp_path / "curves.png")
    assert_whole_png(tmp_path / "curves.png")


@pytest.mark.parametrize("name", LISTS)
def test_det_and_histograms_are_written_whole_for_any_list(name, tmp_path):
    (tmp_path / "det").mkdir()
    plot_det([det_curve_of(name, *LISTS[name])], tmp_path / "det" / "det.png")
    assert_whole_png(tmp_path / "det" / "det.png")
    (tmp_path / "scores").mkdir()
    plot_score_histograms(*LISTS[name], {"EER": 0.5, "door": None}, tmp_path / "scores" / "scores.png")
    assert_whole_png(tmp_path / "scores" / "scores.png")


def test_a_picture_replaces_the_one_before(tmp_path):
    path = tmp_path / "curves.png"
    path.write_text("an older picture")
    plot_curves(EPOCHS, path)
    assert_whole_png(path)


def test_curves_show_loss_eer_in_per_cent_and_the_best_epoch():
    loss, eer = curves_figure(EPOCHS).axes
    assert loss.lines[0].get_ydata().tolist() == [9.0, 5.0, 4.0]
    assert eer.lines[0].get_ydata() == pytest.approx([20.0, 8.25, 10.0])
    assert "8.25 % at epoch 2" in eer.get_title()
    star = next(line for line in eer.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (2, pytest.approx(8.25))
    assert "(%)" in eer.get_ylabel() and eer.get_xlabel() == "epoch"


@pytest.mark.parametrize("missing", [None, "", float("nan"), "nan"])
def test_curves_without_any_eer_have_one_panel_and_with_some_pass_over_the_rest(missing):
    assert len(curves_figure([{**row, "eer": missing} for row in EPOCHS]).axes) == 1
    assert len(curves_figure([{"epoch": 1, "train_loss": 2.0}]).axes) == 1
    eer = curves_figure([EPOCHS[0], {**EPOCHS[1], "eer": missing}, EPOCHS[2]]).axes[1]
    assert eer.lines[0].get_xdata().tolist() == [1, 3]
    assert "epoch 3" in eer.get_title()


def test_curves_read_the_text_of_a_csv_file():
    _, eer = curves_figure([{name: str(value) for name, value in row.items()} for row in EPOCHS]).axes
    assert eer.lines[0].get_ydata() == pytest.approx([20.0, 8.25, 10.0])


def test_det_has_normal_deviate_axes_in_per_cent_the_diagonal_and_each_eer():
    strong, weak = det_curve_of("strong", *trials()), det_curve_of("_weak $5 mic$", *trials(distance=1.0))
    figure = det_figure([strong, weak])
    (axes,) = figure.axes
    ticks = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert ticks["5"] == pytest.approx(ndtri(0.05)) and ticks["40"] == pytest.approx(ndtri(0.4))
    assert axes.get_xlim() == axes.get_ylim()
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    for dot, (*_, eer) in zip(dots, (strong, weak), strict=True):
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (pytest.approx(ndtri(eer)), pytest.approx(ndtri(eer)))
    diagonal = axes.lines[0]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert texts(figure) == [f"EER {100 * strong[3]:.2f} %: strong", rf"EER {100 * weak[3]:.2f} %: _weak \$5 mic\$"]


@pytest.mark.parametrize("name", [name for name in LISTS if name != "wrong way round"])
def test_det_line_passes_through_its_eer_point(name):
    label, far, frr, eer = det_curve_of(name, *LISTS[name])
    (axes,) = det_figure([(label, far, frr, eer)]).axes
    line, dot = axes.lines[1], axes.lines[2]
    distance = np.hypot(line.get_xdata() - dot.get_xdata()[0], line.get_ydata() - dot.get_ydata()[0])
    assert distance.min() < 0.1  # of about 5 on these axes


@pytest.mark.parametrize(
    "name, said",
    [("separated", ["EER below the scale"]), ("usual", []), ("wrong way round", ["EER above the scale"])],
)
def test_det_says_so_when_the_eer_lies_off_its_scale(name, said):
    (axes,) = det_figure([det_curve_of(name, *LISTS[name])]).axes
    assert [text.get_text() for text in axes.texts] == said
    assert np.isfinite(axes.lines[2].get_xdata()).all()


def test_det_of_many_trials_draws_few_points():
    (axes,) = det_figure([det_curve_of("many", *trials(50_000, 150_000))]).axes
    assert 100 < len(axes.lines[1].get_xdata()) < 10_000


def test_histograms_are_densities_with_counts_and_every_threshold_in_the_legend():
    scores, is_target = trials()
    thresholds = {"EER": 1.25, "minDCF 0.01": 2.5, "minDCF 0.05": 2.5, "door": None, "vault": np.inf}
    figure = score_histograms_figure(scores, is_target, thresholds)
    (axes,) = figure.axes
    assert texts(figure) == [
        "non-target (2,000 trials)",
        "target (200 trials)",
        "threshold, EER: 1.25",
        "threshold, minDCF 0.01 and minDCF 0.05:\n2.5",
        "threshold, door and vault: rejects all",
    ]
    assert [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata())] == [1.25, 2.5]
    for patch in axes.patches:  # stepfilled: one closed outline per kind
        x, y = patch.get_xy().T
        area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
        assert area == pytest.approx(1.0)
    assert len(axes.patches) == 2 and axes.get_xlabel() and axes.get_ylabel()


def test_importing_the_module_leaves_pyplot_and_torch_alone():
    code = "import sys, voice_biometrics.plots, voice_biometrics.metrics, voice_biometrics.scoring; "
    code += "print([name for name in ('matplotlib.pyplot', 'torch', 'speechbrain') if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
