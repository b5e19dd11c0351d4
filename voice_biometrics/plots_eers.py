"""Pictures of EERs side by side, each with its 95 % interval: by group of speakers, and by condition.

Each ``plot_*`` writes one PNG; its ``*_figure`` twin returns the matplotlib Figure.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voice_biometrics.intervals import Interval
from voice_biometrics.plots_style import BLUE, VERMILION, legend_text, quiet_axes, save_figure

LABEL_WIDTH = 36  # characters of a name; longer ones are cut
ROW_IN = 0.30  # inches


@dataclass(frozen=True)
class GroupEer:
    """The EER of a group of trials, a fraction, with its 95 % interval; None for what cannot be measured.

    column : what divides the trials ("gender"). group : its value ("f").
    num_speakers, num_trials : what the figures rest on.
    """

    column: str
    group: str
    eer: float | None
    lower: float | None
    upper: float | None
    num_speakers: int
    num_trials: int


@dataclass(frozen=True)
class _Row:
    """A line of the picture: a heading, or a name with an EER (fractions) and a remark."""

    name: str
    is_heading: bool = False
    eer: float | None = None
    lower: float | None = None
    upper: float | None = None
    remark: str = ""


def plot_group_eers(groups: Sequence[GroupEer], overall: Interval, path: Path) -> None:
    """Write the picture of ``group_eers_figure`` to ``path`` (PNG)."""
    save_figure(group_eers_figure(groups, overall), path)


def plot_condition_eers(eers: Mapping[str, Interval], path: Path) -> None:
    """Write the picture of ``condition_eers_figure`` to ``path`` (PNG)."""
    save_figure(condition_eers_figure(eers), path)


def group_eers_figure(groups: Sequence[GroupEer], overall: Interval) -> Figure:
    """Draw the EER of each group with its interval, column by column, and that of all trials as a line.

    A group whose EER is None (a single speaker, say) keeps its row and shows a dash; an EER without interval is a
    hollow dot.

    Arguments
    ---------
    groups : in the order of the picture; groups of one column stand together.
    overall : the EER of all trials.
    """
    rows = []
    for column, members in groupby(groups, key=lambda group: group.column):
        rows.append(_Row(column, is_heading=True))
        for member in members:
            counts = f"{_counted(member.num_speakers, 'speaker')}, {_counted(member.num_trials, 'trial')}"
            rows.append(_Row(member.group, False, member.eer, member.lower, member.upper, counts))
    return _rows_figure(rows, overall, "all trials")


def condition_eers_figure(eers: Mapping[str, Interval]) -> Figure:
    """Draw the EER of each condition with its interval, and that of the first, the clean one, as a line.

    Arguments
    ---------
    eers : name of the condition -> EER, a fraction; the clean one comes first.
    """
    rows = [_Row(name, False, found.estimate, found.lower, found.upper) for name, found in eers.items()]
    name, clean = next(iter(eers.items()))
    return _rows_figure(rows, clean, name)


def _rows_figure(rows: Sequence[_Row], reference: Interval, reference_name: str) -> Figure:
    """Draw rows from top to bottom, figures in words at the right, and the reference as a line with its interval."""
    figure = Figure(figsize=(8.0, 1.4 + ROW_IN * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    low, high = 100.0 * reference.lower, 100.0 * reference.upper
    text = f"{reference_name}: {_in_words(reference.estimate, reference.lower, reference.upper)}, interval grey"
    axes.axvspan(low, high, color="0.9", zorder=0)
    line = axes.axvline(100.0 * reference.estimate, color=VERMILION, linestyle="--", zorder=1, label=legend_text(text))
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    _name_rows(axes, rows)
    ends = [row.upper for row in rows if row.upper is not None and row.upper < 1.0]  # 1.0: nothing is known
    ends += [reference.upper, *(row.eer for row in rows if row.eer is not None)]
    axes.set_xlim(0.0, 100.0 * min(1.0, 1.08 * max(ends)))
    axes.set_xlabel("EER (%), with 95 % interval")
    figure.legend(handles=[line], loc="outside lower center", frameon=False)
    return figure


def _draw_row(axes: Axes, place: int, row: _Row) -> None:
    """Draw the dot and the whisker of one row, as far as they are known."""
    if row.eer is None:
        return
    has_interval = row.lower is not None and row.upper is not None
    if has_interval:
        axes.plot([100.0 * row.lower, 100.0 * row.upper], [place] * 2, color=BLUE, linewidth=2.0, zorder=3)
    face = BLUE if has_interval else "white"
    axes.plot([100.0 * row.eer], [place], "o", color=BLUE, markerfacecolor=face, markersize=7, zorder=4, clip_on=False)


def _name_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    """Write names at the left, headings bold, and figures at the right."""
    places = range(len(rows))
    names = [legend_text(textwrap.shorten(row.name, LABEL_WIDTH, placeholder=" ...") or "(none)") for row in rows]
    axes.set_yticks(places, names)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.is_heading else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    quiet_axes(axes)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, ["" if row.is_heading else _figures(row) for row in rows])
    right.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)


def _figures(row: _Row) -> str:
    """Say the figures of a row in words."""
    return "   ".join(filter(None, [_in_words(row.eer, row.lower, row.upper), row.remark]))


def _in_words(eer: float | None, lower: float | None, upper: float | None) -> str:
    """Word an EER and its interval in per cent."""
    if eer is None:
        return "–"
    interval = "" if lower is None or upper is None else f" ({100.0 * lower:.2f} to {100.0 * upper:.2f})"
    return f"{100.0 * eer:.2f} %{interval}"


def _counted(number: int, noun: str) -> str:
    """Return "1 speaker", "2,000 speakers"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
