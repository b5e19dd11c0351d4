"""Training curves: loss, EER and the best epoch are drawn."""

import pytest

from tests.picture_checks import assert_saved_whole
from voice_biometrics.training.curves import curves_figure, plot_curves

EPOCHS = [
    {"epoch": 1, "train_loss": 9.0, "eer": 0.2},
    {"epoch": 2, "train_loss": 5.0, "eer": 0.0825},
    {"epoch": 3, "train_loss": 4.0, "eer": 0.1},
]


def test_curves_show_loss_eer_in_per_cent_and_the_best_epoch(tmp_path):
    loss, eer = curves_figure(EPOCHS).axes
    assert loss.lines[0].get_ydata().tolist() == [9.0, 5.0, 4.0]
    assert eer.lines[0].get_ydata() == pytest.approx([20.0, 8.25, 10.0])
    assert "8.25 % at epoch 2" in eer.get_title() and "(%)" in eer.get_ylabel()
    assert_saved_whole(curves_figure(EPOCHS), tmp_path)


def test_epochs_without_an_eer_are_skipped():
    missing = float("nan")
    assert len(curves_figure([{**row, "eer": missing} for row in EPOCHS]).axes) == 1
    eer = curves_figure([EPOCHS[0], {**EPOCHS[1], "eer": missing}, EPOCHS[2]]).axes[1]
    assert eer.lines[0].get_xdata().tolist() == [1, 3] and "epoch 3" in eer.get_title()


def test_a_plot_replaces_the_one_before(tmp_path):
    (tmp_path / "curves.png").write_text("an older plot")
    plot_curves(EPOCHS[:1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
