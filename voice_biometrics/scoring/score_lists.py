"""Scores as other tools write them: lines of two utterances, a score and perhaps a label, in any of the usual orders.

- with labels: WeSpeaker's ``id id score target``, SpeechBrain's ``id id 1 score``, ``label id id score`` and others;
- without, so that the labels come from a trial list: Kaldi's ``id id score``, VoxSRC's ``score id id``.

Fields are separated by blanks, tabs, commas or semicolons; the columns are found by their content, and a header line is
skipped.
"""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import (
    LABELS,
    SAMPLE,
    first_line,
    has_header,
    plain_path,
    read_fields,
    read_trials,
    separator_of,
    utterance_id,
)
from voice_biometrics.scoring.scored_trials import ID_COLUMNS, trial_keys

ADVICE = "a line that would do: 'anna/1.wav anna/2.wav 1 0.83', or the header enrol_id,test_id,target,score"
NO_SCORES = ("na", "nan", "none", "null", "inf")


def read_score_list(path: Path) -> pd.DataFrame:
    """Return a list of scores as text: ``enrol_id``, ``test_id``, ``score`` and, where there are labels, ``target``.

    The index holds line numbers. Raises InputError, with the first line, where the columns cannot be told.
    """
    line = first_line(path)
    fields = read_fields(path, separator_of(line), list("abcd"))
    fields = fields.loc[:, fields.iloc[:SAMPLE].ne("").any()]
    order = _columns(fields.iloc[1 : 1 + SAMPLE] if len(fields) > 1 else fields)
    if order is None:
        raise InputError(
            f"{path}: expected two utterances, a score and perhaps a label in a line, found {line.strip()[:120]!r}; "
            f"{ADVICE}"
        )
    scores = fields.set_axis(order, axis=1)
    first = scores["score"].iloc[0].lower()
    if not re.search(r"\d", first) and first not in NO_SCORES and ("target" not in scores or has_header(scores)):
        scores = scores.iloc[1:].copy()
    for column in ID_COLUMNS:
        scores[column] = scores[column].map(plain_path)
    return scores


def _columns(sample: pd.DataFrame) -> list[str] | None:
    """Return the names of the columns that fit most of their content, if one way fits better than all others.

    A label fits a column of labels, a score one of numbers; IDs that are numbers, or even fractions, fit badly.
    """
    numbers = sample.apply(pd.to_numeric, errors="coerce")
    is_label = sample.apply(lambda column: column.str.lower().isin(LABELS)).mean() >= 0.5
    is_number = numbers.notna().mean() >= 0.5
    misfit = is_number.astype(int) + (is_number & (numbers % 1 != 0).any())
    found = []
    for score, target in product(sample, [*sample] if len(sample.columns) == 4 else [None]):
        ids = [column for column in sample if column not in (score, target)]
        if len(ids) == 2 and is_number[score] and (target is None or is_label[target]):
            names = dict(zip(ids, ID_COLUMNS, strict=True)) | {score: "score", target: "target"}
            found.append((misfit[ids].sum(), [names[column] for column in sample]))
    found.sort()
    return None if not found or (len(found) > 1 and found[0][0] == found[1][0]) else found[0][1]


def join_labels(
    scores: pd.DataFrame, path: Path, trials_file: Path, name_row: Callable[[int], str] = "line {}".format
) -> pd.DataFrame:
    """Return the trials of a list with the scores read from ``path``, in any order, and their labels.

    A path may differ from that of the trial list in its suffix and, if it is absolute, in the folders it begins with.
    Raises InputError, naming the first with its line (``name_row`` of its index), for a trial without a score or with
    two, a score without a trial, and another label than in the list.
    """
    trials = read_trials(trials_file)
    for table, other in ((scores, trials), (trials, scores)):
        known = pd.Index(pd.unique(other[ID_COLUMNS].to_numpy().ravel()))
        for column in ID_COLUMNS:
            table[column] = table[column].map({name: utterance_id(name, known) for name in table[column].unique()})
    listed, scored = trial_keys([trials, scores])
    scores = scores.assign(key=scored)
    repeated = scores.duplicated("key")
    differs = repeated & ~scores.duplicated(["key", "score"])
    _name_first(scores, differs, path, "is scored twice, differently", name_row)
    _name_first(scores, ~np.isin(scored, listed), path, f"is not a trial of {trials_file}", name_row)
    _name_first(trials, ~np.isin(listed, scored), trials_file, f"has no score in {path}")
    place = pd.Index(scores["key"][~repeated]).get_indexer(listed)
    scores, target = scores[~repeated].iloc[place], trials["target"].to_numpy()
    if "target" in scores:
        own = scores["target"].astype(str).str.strip().str.lower().map(LABELS).to_numpy()
        _name_first(scores, own != target, path, f"has another label than in {trials_file}", name_row)
    return scores.assign(target=target.astype(str)).drop(columns="key")


def _name_first(
    table: pd.DataFrame,
    wrong: np.ndarray | pd.Series,
    path: Path,
    fault: str,
    name_row: Callable[[int], str] = "line {}".format,
) -> None:
    """Raise InputError for the first trial that is wrong."""
    if np.any(wrong):
        row = int(np.argmax(wrong))
        pair = " ".join(table[ID_COLUMNS].iloc[row])
        raise InputError(f"{path}, {name_row(table.index[row])}: {pair} {fault} ({np.count_nonzero(wrong):,} such)")
