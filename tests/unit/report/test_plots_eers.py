"""EERs side by side: every group and condition has its row, dot, whisker and words; what is unknown is a dash."""

import pytest

from tests.picture_checks import assert_whole_png, legend_texts
from voice_biometrics.metrics.bootstrap import Interval
from voice_biometrics.report.plots import (
    GroupEer,
    condition_eers_figure,
    group_eers_figure,
    plot_condition_eers,
    plot_group_eers,
)


def interval(estimate, lower, upper):
    return Interval(estimate, lower, upper, num_replicates=1000, num_degenerate=0, num_speakers=25)


OVERALL = interval(0.06, 0.04, 0.09)
GROUPS = [
    GroupEer("gender", "f", 0.07, 0.03, 0.12, 11, 24_090),
    GroupEer("gender", "m", 0.05, None, None, 2, 780),
    GroupEer("age", "31 to 50", None, None, None, 1, 190),
]
CONDITIONS = {"clean": OVERALL, "noise, 0 dB SNR": interval(0.31, 0.27, 0.36)}


def rows_of(figure):
    """Return name -> words at the right, from top to bottom."""
    (axes,) = figure.axes
    (right,) = axes.child_axes
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first row on top
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert right.get_yticks().tolist() == axes.get_yticks().tolist() == list(range(len(names)))
    return dict(zip(names, [label.get_text() for label in right.get_yticklabels()], strict=True))


def drawn(figure):
    """Return (row, EER) of each dot, and row -> ends of each whisker, in per cent."""
    lines = figure.axes[0].lines[1:]  # the first is the reference
    dots = [(line.get_ydata()[0], line.get_xdata()[0]) for line in lines if line.get_marker() == "o"]
    return dots, {line.get_ydata()[0]: list(line.get_xdata()) for line in lines if line.get_marker() != "o"}


def test_both_are_written_whole(tmp_path):
    plot_group_eers(GROUPS, OVERALL, tmp_path / "groups.png")
    assert_whole_png(tmp_path / "groups.png")
    (tmp_path / "groups.png").unlink()
    plot_condition_eers(CONDITIONS, tmp_path / "conditions.png")
    assert_whole_png(tmp_path / "conditions.png")


def test_groups_stand_under_their_column_with_figures_in_words():
    assert rows_of(group_eers_figure(GROUPS, OVERALL)) == {
        "gender": "",
        "f": "7.00 % (3.00 to 12.00)   11 speakers, 24,090 trials",
        "m": "5.00 %   2 speakers, 780 trials",
        "age": "",
        "31 to 50": "–   1 speaker, 190 trials",
    }


def test_headings_are_bold_and_groups_are_not():
    labels = group_eers_figure(GROUPS, OVERALL).axes[0].get_yticklabels()
    weights = {label.get_text(): label.get_fontweight() for label in labels}
    assert weights == {"gender": "bold", "f": "normal", "m": "normal", "age": "bold", "31 to 50": "normal"}


def test_dots_and_whiskers_are_in_per_cent_and_only_for_what_is_known():
    figure = group_eers_figure(GROUPS, OVERALL)
    dots, whiskers = drawn(figure)
    assert dots == [(1, pytest.approx(7.0)), (2, pytest.approx(5.0))]
    assert whiskers == {1: pytest.approx([3.0, 12.0])}
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert faces[1] == "white" != faces[0]  # no interval: hollow
    assert "EER (%)" in figure.axes[0].get_xlabel() and figure.axes[0].get_xlim()[0] == 0.0


def test_the_reference_is_a_line_with_its_interval_and_is_explained():
    figure = group_eers_figure(GROUPS, OVERALL)
    (axes,) = figure.axes
    assert list(axes.lines[0].get_xdata()) == pytest.approx([6.0, 6.0])
    (span,) = axes.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((4.0, 9.0))
    assert legend_texts(figure) == ["all trials: 6.00 % (4.00 to 9.00), interval grey"]


def test_conditions_are_compared_with_the_first():
    figure = condition_eers_figure(CONDITIONS)
    assert rows_of(figure) == {"clean": "6.00 % (4.00 to 9.00)", "noise, 0 dB SNR": "31.00 % (27.00 to 36.00)"}
    assert drawn(figure)[1] == {0: pytest.approx([4.0, 9.0]), 1: pytest.approx([27.0, 36.0])}
    assert legend_texts(figure)[0].startswith("clean: 6.00 %")


def test_names_from_data_are_cut_and_harmless():
    long = GroupEer("c", "word " * 20, 0.1, 0.05, 0.2, 3, 9)
    empty, dollars = (GroupEer("c", name, 0.1, 0.05, 0.2, 3, 9) for name in ("", "$x$ $"))
    figure = group_eers_figure([long, empty, dollars], OVERALL)
    _, first, second, third = rows_of(figure)
    assert len(first) <= 36 and first.endswith("...")
    assert (second, third) == ("(none)", r"\$x\$ \$")
    figure.draw_without_rendering()  # unescaped, "$ $" would not parse
