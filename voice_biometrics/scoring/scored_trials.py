"""Tables of scored trials (``enrol_id, test_id, target, score``) with the utterances behind them.

A trial is an ordered pair: (a, b) and (b, a) are two trials, since a system may treat the two sides differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import plain_path, utterance_id
from voice_biometrics.metrics.bootstrap import SpeakerBootstrap
from voice_biometrics.metrics.calibration import log_durations
from voice_biometrics.metrics.error_rates import ErrorRates, error_rates

ID_COLUMNS = ["enrol_id", "test_id"]


def without_repeated(
    scores: pd.DataFrame, name: str, name_row: Callable[[int], str] = lambda row: f"trial {row + 1}"
) -> pd.DataFrame:
    """Return ``scores`` without repeated trials, and print how many were removed.

    Arguments
    ---------
    scores : a table with ``enrol_id``, ``test_id``, ``target`` and ``score``.
    name : of the table, for messages. name_row : returns the name of a row, counted from 0.

    Raises
    ------
    InputError : a trial is repeated with another score or label.
    """
    repeated = pd.Series(trial_keys([scores])[0]).duplicated().to_numpy()
    if not repeated.any():
        return scores
    differs = repeated & ~scores.duplicated([*ID_COLUMNS, "target", "score"]).to_numpy()
    if differs.any():
        later = int(np.argmax(differs))
        enrol_id, test_id = scores[ID_COLUMNS].iloc[later]
        earlier = int(np.argmax((scores["enrol_id"] == enrol_id) & (scores["test_id"] == test_id)))
        target, score = scores["target"].to_numpy(), scores["score"].to_numpy()
        found = " and ".join(f"{score[row]} (target {target[row]}) in {name_row(row)}" for row in (earlier, later))
        raise InputError(
            f"{name}: trial {enrol_id} {test_id} is repeated with another score or label: {found} "
            f"({np.count_nonzero(differs):,} such); keep one of each"
        )
    print(f"Note     {name}: {repeated.sum():,} repeated trials with the same score are counted once")
    return scores[~repeated].reset_index(drop=True)


def trial_keys(tables: Sequence[pd.DataFrame]) -> list[np.ndarray]:
    """Return (trials,) int64 for each table: numbers of the pairs ``enrol_id, test_id``, the same in all tables."""
    codes, utt_ids = id_codes(tables)
    num_ids = np.int64(len(utt_ids))
    return [enrol * num_ids + test for enrol, test in zip(codes[::2], codes[1::2], strict=True)]


def id_codes(tables: Sequence[pd.DataFrame]) -> tuple[list[np.ndarray], pd.Index]:
    """Return ``enrol_id`` and ``test_id`` of each table as numbers of IDs, (trials,) int each, and the IDs."""
    sides = [_categorical(table[column]) for table in tables for column in ID_COLUMNS]
    joined = pd.api.types.union_categoricals(sides)
    return np.split(joined.codes, np.cumsum([len(side) for side in sides])[:-1]), joined.categories


def utterance_rows(scores: pd.DataFrame, utt_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of ``enrol_id`` and ``test_id`` of each trial in ``utt_ids``, (trials,) int each.

    Raises InputError, naming the first, when an utterance of a trial is not in ``utt_ids``.
    """
    found = []
    for column in ID_COLUMNS:
        side = _categorical(scores[column])
        rows = utt_ids.get_indexer(side.categories)[side.codes]
        if (rows < 0).any():
            trial = int(np.argmax(rows < 0))
            raise InputError(
                f"trial {trial + 1}: {column} {scores[column].iloc[trial]} is not among the {len(utt_ids)} utterances "
                "of the manifest; use the manifest of these trials"
            )
        found.append(rows)
    return found[0], found[1]


def named_like(scores: pd.DataFrame, utt_ids: pd.Index) -> pd.DataFrame:
    """Return ``scores`` with paths replaced by the IDs of ``utt_ids`` that they name (see ``utterance_id``), if any."""
    ids = {column: pd.unique(scores[column]) for column in ID_COLUMNS}
    if all(pd.Index(names).isin(utt_ids).all() for names in ids.values()):
        return scores
    known = {column: {name: utterance_id(plain_path(name), utt_ids) for name in names} for column, names in ids.items()}
    return scores.assign(**{column: scores[column].astype(object).map(names) for column, names in known.items()})


def _categorical(ids: pd.Series) -> pd.Categorical:
    """Return a column of IDs as categories, as a score file has them."""
    return (ids if isinstance(ids.dtype, pd.CategoricalDtype) else ids.astype("str").astype("category")).array


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Scored trials of one system under one condition.

    name : of the condition, for tables: "clean", "channel".
    table : the columns ``enrol_id``, ``test_id``, ``target`` (1 or 0) and ``score``.
    utterances : a row for each utterance and enrolled model: ``ID``, ``spk_id``, and if known ``duration`` (s), ``wav``
        and metadata.
    embeddings : (utterances, dims), of the same rows; None if only scores are known.
    """

    name: str
    table: pd.DataFrame
    utterances: pd.DataFrame
    embeddings: np.ndarray | None = None

    @property
    def scores(self) -> np.ndarray:
        """Scores, (trials,) float64."""
        return self.table["score"].to_numpy()

    @property
    def is_target(self) -> np.ndarray:
        """True for target trials, (trials,) bool."""
        return self.table["target"].to_numpy() == 1

    @cached_property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of both sides in ``utterances``, (trials,) int each; raises as ``utterance_rows``."""
        return utterance_rows(self.table, pd.Index(self.utterances["ID"]))

    def of_sides(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of the manifest for the enrolment and for the test side, (trials,) each."""
        values = self.utterances[column].to_numpy()
        return values[self.rows[0]], values[self.rows[1]]

    @cached_property
    def rates(self) -> ErrorRates:
        """Every operating point of the scores."""
        return error_rates(self.scores, self.is_target)

    @cached_property
    def bootstrap(self) -> SpeakerBootstrap:
        """Draws of the speakers, for intervals of any figure of these trials; the seed is 0 for every list.

        Raises InputError, naming the first, when a label contradicts the speakers; or as ``SpeakerBootstrap``.
        """
        enrol, test = self.of_sides("spk_id")
        wrong = (enrol == test) != self.is_target
        if wrong.any():
            trial = int(np.argmax(wrong))
            kind = "target" if self.is_target[trial] else "non-target"
            raise InputError(
                f"trial {' '.join(self.table[ID_COLUMNS].iloc[trial])} is labelled {kind}, but its speakers are "
                f"{enrol[trial]} and {test[trial]} ({wrong.sum():,} such trials): correct the labels or the manifest"
            )
        return SpeakerBootstrap(self.is_target, enrol, test)

    def log_durations(self) -> dict[str, np.ndarray]:
        """Return the quality measures of ``metrics.calibration.log_durations``."""
        return log_durations(*self.of_sides("duration"))
