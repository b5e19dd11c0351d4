"""Helpers for tests of plots: lists of trials, legends, complete files."""

import numpy as np

from voice_biometrics.common.plot_style import save_figure


def trials(num_target=200, num_nontarget=2000, distance=2.0):
    rng = np.random.default_rng(0)
    is_target = np.arange(num_target + num_nontarget) < num_target
    return rng.normal(size=is_target.size) + distance * is_target, is_target


TRIAL_LISTS = {
    "usual": trials(),
    "one of each": trials(1, 1),
    "separated": trials(20, 20, 100.0),
    "wrong way round": trials(20, 20, -100.0),
    "tied": (np.full(8, 0.25), np.arange(8) < 3),
}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def assert_saved_whole(figure, folder):
    save_figure(figure, folder / "plot.png")
    content = (folder / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG") and b"IEND" in content[-12:] and len(content) > 5000
    assert [found.name for found in folder.iterdir()] == ["plot.png"]  # no temporary file is left
