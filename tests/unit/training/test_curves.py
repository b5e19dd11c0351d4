"""Pictures: each is a whole PNG, and what it must show is really drawn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.picture_checks import TRIAL_LISTS, assert_whole_png, legend_texts, trials
from voice_biometrics.report.plots import plot_score_histograms, score_histograms_figure
from voice_biometrics.training.curves import curves_figure, plot_curves

EPOCHS = [
    {"epoch": 1, "train_loss": 9.0, "eer": 0.2},
    {"epoch": 2, "train_loss": 5.0, "eer": 0.0825},
    {"epoch": 3, "train_loss": 4.0, "eer": 0.1},
]


@pytest.mark.parametrize("rows", [EPOCHS, EPOCHS[:1], [{**row, "eer": None} for row in EPOCHS]])
def test_curves_are_written_whole(rows, tmp_path):
    plot_curves(rows, tmp_path / "curves.png")
    assert_whole_png(tmp_path / "curves.png")


@pytest.mark.parametrize("name", TRIAL_LISTS)
def test_histograms_are_written_whole_for_any_list(name, tmp_path):
    plot_score_histograms(*TRIAL_LISTS[name], {"EER": 0.5, "door": None}, tmp_path / "scores.png")
    assert_whole_png(tmp_path / "scores.png")


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


def test_histograms_are_densities_with_counts_and_every_threshold_in_the_legend():
    scores, is_target = trials()
    thresholds = {"EER": 1.25, "minDCF 0.01": 2.5, "minDCF 0.05": 2.5, "door": None, "vault": np.inf}
    figure = score_histograms_figure(scores, is_target, thresholds)
    (axes,) = figure.axes
    assert legend_texts(figure) == [
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


def test_importing_the_modules_leaves_pyplot_and_torch_alone():
    root = Path(__file__).parents[3]
    names = ["report.plots", "training.curves", "metrics.error_rates", "scoring.cosine"]
    code = f"import sys, {', '.join(f'voice_biometrics.{name}' for name in names)}; "
    code += "print([name for name in ('matplotlib.pyplot', 'torch', 'speechbrain') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
