"""A map of utterances: their embeddings in the plane that keeps most of their spread, coloured by speaker.

A plane shows a part of what the embeddings tell apart, and the axes say how large a part: clouds that lie apart here
are apart, clouds that overlap here need not be confused.
"""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from voice_biometrics.errors import InputError
from voice_biometrics.plots_style import LINE_COLOURS, MARKERS, legend_text, quiet_axes, save_figure

MAX_TOLD_APART = 50  # speakers that colours with markers can tell apart
LEGEND_ROWS = 26


def plot_embedding_map(
    embeddings: np.ndarray, speakers: np.ndarray, path: Path, named: Collection[str] | None = None
) -> None:
    """Write the picture of ``embedding_map_figure`` to ``path`` (PNG)."""
    save_figure(embedding_map_figure(embeddings, speakers, named), path)


def embedding_map_figure(embeddings: np.ndarray, speakers: np.ndarray, named: Collection[str] | None = None) -> Figure:
    """Draw each utterance on the first two principal components of the length-normalised embeddings.

    Arguments
    ---------
    embeddings : (utterances, dims) float.
    speakers : (utterances,) the speaker of each.
    named : speakers to be coloured, numbered and listed, the most confused ones, say; the others are grey. By
        default all where they can be told apart (up to 50), and none where they are more.

    Raises
    ------
    InputError : fewer than 2 utterances or dimensions, shapes that differ, a value that is not finite, an embedding
        of zeros, or a named speaker without utterance.
    """
    speakers = np.asarray(speakers).astype(str)
    places, shares = _principal_plane(embeddings, speakers)
    present = pd.unique(np.sort(speakers))
    if named is None:
        named = present if present.size <= MAX_TOLD_APART else ()
    named = _checked_names(named, present)
    others = ~np.isin(speakers, named)
    num_columns = math.ceil((len(named) + others.any()) / LEGEND_ROWS)
    figure = Figure(figsize=(6.8 + 1.6 * num_columns, 6.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*places[others].T, ".", color="0.75", markersize=4, zorder=1)
    handles = [_draw_speaker(axes, number, name, places[speakers == name]) for number, name in enumerate(named)]
    _number_clouds(axes, [np.median(places[speakers == name], axis=0) for name in named], np.ptp(places, axis=0).max())
    if others.any():
        text = f"{present.size - len(named):,} {'other ' if named else ''}speakers"
        handles.append(Line2D([], [], marker=".", color="0.75", linestyle="none", label=text))
    axes.set_xlabel(f"first principal component ({100.0 * shares[0]:.0f} % of the variance)")
    axes.set_ylabel(f"second principal component ({100.0 * shares[1]:.0f} % of the variance)")
    axes.set_aspect("equal")
    quiet_axes(axes)
    figure.legend(handles=handles, loc="outside right upper", ncols=num_columns, frameon=False, title="speaker")
    return figure


def _principal_plane(embeddings: np.ndarray, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the utterances' places (utterances, 2) and the share of the variance along each axis, (2,)."""
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or min(embeddings.shape) < 2 or speakers.shape != embeddings.shape[:1]:
        raise InputError(
            f"embeddings {embeddings.shape} with speakers {speakers.shape}: a map takes 2 or more utterances, 2 or "
            "more dimensions, and one speaker per utterance"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0.0)
    if not usable.all():
        raise InputError(f"utterance {int(np.argmin(usable))} (counted from 0): its embedding is zero or not finite")
    directions = embeddings / lengths[:, None]
    directions -= directions.mean(axis=0)
    variances, axes = np.linalg.eigh(directions.T @ directions)  # ascending; (dims, dims) however many utterances
    places = directions @ axes[:, :-3:-1]  # (utterances, 2)
    return places, variances[:-3:-1] / max(variances.sum(), np.finfo(np.float64).tiny)


def _checked_names(named: Collection[str], present: np.ndarray) -> list[str]:
    """Return the named speakers as text, each once, or raise InputError for one that has no utterance."""
    names = list(dict.fromkeys(str(name) for name in named))
    missing = [name for name in names if name not in set(present)]
    if missing:
        raise InputError(f"speaker {missing[0]!r} is to be named on the map, but has no utterance there")
    return names


def _draw_speaker(axes: Axes, number: int, name: str, places: np.ndarray) -> Line2D:
    """Draw a speaker's utterances, and return what the legend says."""
    marker = MARKERS[(number // len(LINE_COLOURS)) % len(MARKERS)]
    look = {"marker": marker, "color": LINE_COLOURS[number % len(LINE_COLOURS)], "linestyle": "none"}
    axes.plot(*places.T, markersize=5, alpha=0.7, markeredgewidth=0.0, zorder=2, **look)
    return Line2D([], [], markersize=7, label=legend_text(f"{number + 1}: {name}", 30), **look)


def _number_clouds(axes: Axes, centres: list[np.ndarray], extent: float) -> None:
    """Write each speaker's number, framed in his colour, at the centre of his cloud or as near as others allow."""
    for number, (x, y) in enumerate(_moved_apart(np.reshape(centres, (-1, 2)), 0.045 * extent)):
        frame = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.85}
        frame["edgecolor"] = LINE_COLOURS[number % len(LINE_COLOURS)]
        axes.text(x, y, str(number + 1), ha="center", va="center", fontsize=8, zorder=4, bbox=frame)


def _moved_apart(places: np.ndarray, distance: float) -> np.ndarray:
    """Return ``places`` (points, 2) with those that are too near pushed apart, until all keep about ``distance``."""
    turns = np.arange(len(places))[:, None]
    places = places + 1e-3 * distance * np.hstack([np.cos(turns), np.sin(turns)])  # no two in the very same place
    for _ in range(100):
        away = places[:, None] - places  # (points, points, 2)
        gaps = np.linalg.norm(away, axis=2)
        np.fill_diagonal(gaps, np.inf)
        if gaps.min(initial=np.inf) >= distance:
            break
        lacking = np.maximum(distance - gaps, 0.0) / 2.0
        places = places + (away / gaps[:, :, None] * lacking[:, :, None]).sum(axis=1)
    return places
