"""Scored trials of one system under one condition, and who is on either side of them.

Tables of scored trials (``enrol_id, test_id, target, score``): trials told apart, repeated ones, their utterances.

A trial is an ordered pair: (a, b) and (b, a) are two trials, since a system may treat its two sides differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.calibration import log_durations

ID_COLUMNS = ["enrol_id", "test_id"]


def without_repeated(
    scores: pd.DataFrame, name: str, name_row: Callable[[int], str] = lambda row: f"trial {row + 1}"
) -> pd.DataFrame:
    """Return ``scores`` with each trial once, the first time it stands there, and tell how many were left out.

    Arguments
    ---------
    scores : a table with ``enrol_id``, ``test_id``, ``target`` and ``score``.
    name : what to call it. name_row : what to call a row of it, counted from 0.

    Raises
    ------
    InputError : a trial is repeated with another score or label.
    """
    key = trial_keys([scores])[0]
    in_order = np.sort(key)
    if not (in_order[1:] == in_order[:-1]).any():
        return scores
    order = np.argsort(key, kind="stable")
    repeats = np.flatnonzero(key[order][1:] == key[order][:-1])
    earlier, later = order[repeats], order[repeats + 1]
    target, score = scores["target"].to_numpy(), scores["score"].to_numpy()
    differs = (target[earlier] != target[later]) | (score[earlier] != score[later])
    if differs.any():
        rows = [int(side[np.argmax(differs)]) for side in (earlier, later)]
        found = " and ".join(f"{score[row]} (target {target[row]}) in {name_row(row)}" for row in rows)
        enrol_id, test_id = scores[ID_COLUMNS].iloc[rows[0]]
        raise InputError(
            f"{name}: trial {enrol_id} {test_id} has the scores {found} ({np.count_nonzero(differs):,} such); "
            "keep one of each"
        )
    print(f"Note     {name}: {later.size:,} trials stand there again with the same score; each is counted once")
    return scores[~np.isin(np.arange(key.size), later)].reset_index(drop=True)


def trial_keys(tables: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    """Return (trials,) int64 for each table: a number for each pair ``enrol_id, test_id``, the same in all tables."""
    codes, utt_ids = id_codes(tables)
    num_ids = np.int64(len(utt_ids))
    return [enrol * num_ids + test for enrol, test in zip(codes[::2], codes[1::2], strict=True)]


def id_codes(tables: Sequence[pd.DataFrame]) -> tuple[list[np.ndarray], pd.Index]:
    """Return ``enrol_id`` and ``test_id`` of each table, (trials,) int each, as places among all IDs; and those IDs."""
    sides = [_categorical(table[column]) for table in tables for column in ID_COLUMNS]
    joined = pd.api.types.union_categoricals(sides)
    return np.split(joined.codes, np.cumsum([len(side) for side in sides])[:-1]), joined.categories


def utterance_rows(scores: pd.DataFrame, utt_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return where ``enrol_id`` and ``test_id`` of each trial stand in ``utt_ids``, (trials,) int each.

    Raises InputError, naming the first, when an utterance of a trial is not among ``utt_ids``.
    """
    found = []
    for column in ID_COLUMNS:
        side = _categorical(scores[column])
        rows = utt_ids.get_indexer(side.categories)[side.codes]
        if (rows < 0).any():
            trial = int(np.argmax(rows < 0))
            raise InputError(
                f"trial {trial + 1}: {column} {scores[column].iloc[trial]} is not among the {len(utt_ids)} utterances "
                "of the manifest; give the manifest of these trials"
            )
        found.append(rows)
    return found[0], found[1]


def _categorical(ids: pd.Series) -> pd.Categorical:
    """Return a column of IDs with each once; that of a score file is so already."""
    return (ids if isinstance(ids.dtype, pd.CategoricalDtype) else ids.astype("str").astype("category")).array


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """A list of trials with scores.

    name : what was scored, for tables: "clean", "channel".
    table : the columns ``enrol_id``, ``test_id``, ``target`` (1 or 0) and ``score``.
    utterances : a row for each utterance and enrolled model: ``ID``, ``spk_id``, and as far as known ``duration`` (s),
        ``wav`` and metadata.
    embeddings : (utterances, dims), of the same rows; None where only scores are known.
    """

    name: str
    table: pd.DataFrame
    utterances: pd.DataFrame
    embeddings: np.ndarray | None = None

    @property
    def scores(self) -> np.ndarray:
        """The scores, (trials,) float64."""
        return self.table["score"].to_numpy()

    @property
    def is_target(self) -> np.ndarray:
        """Which trials are target trials, (trials,) bool."""
        return self.table["target"].to_numpy() == 1

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the enrolment and the test side stand in ``utterances``, (trials,) int each.

        Raises InputError when an utterance of a trial is not there.
        """
        return utterance_rows(self.table, pd.Index(self.utterances["ID"]))

    def of_sides(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of the manifest for the enrolment and for the test side, (trials,) each."""
        values = self.utterances[column].to_numpy()
        return values[self.rows[0]], values[self.rows[1]]

    def speakers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the speakers of the enrolment and of the test side, (trials,) each."""
        return self.of_sides("spk_id")

    def log_durations(self) -> dict[str, np.ndarray]:
        """Return the quality measures of ``calibration.log_durations``."""
        return log_durations(*self.of_sides("duration"))
