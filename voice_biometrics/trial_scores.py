"""Trials with their scores: from embeddings, or from a score file.

Score files are CSV with the columns ``enrol_id, test_id, target, score`` at full precision; higher means more alike.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.trials import COLUMNS as TRIAL_COLUMNS
from data_prep.trials import check_both_kinds
from voice_biometrics.errors import InputError
from voice_biometrics.files import written_whole
from voice_biometrics.scoring import cosine_scores

COLUMNS = [*TRIAL_COLUMNS, "score"]


def score_trials(embeddings: np.ndarray, utt_ids: pd.Index, trials: pd.DataFrame) -> pd.DataFrame:
    """Return ``trials`` with the column ``score``: the cosine of the embeddings (utterances, dims) of ``utt_ids``.

    Every ``enrol_id`` and ``test_id`` must be among ``utt_ids`` (``data_prep.trials.resolve_trials`` sees to it).
    """
    enrol, test = utt_ids.get_indexer(trials["enrol_id"]), utt_ids.get_indexer(trials["test_id"])
    scores = cosine_scores(embeddings, enrol, test, names=utt_ids.tolist())
    return trials.assign(score=scores.astype(np.float64))  # as a score file gives them back, to the last digit


def write_scores(scores: pd.DataFrame, path: Path) -> None:
    """Write a score file, whole or not at all."""
    with written_whole(path) as temporary:
        scores[COLUMNS].to_csv(temporary, index=False)


def read_scores(path: Path) -> pd.DataFrame:
    """Return a score file as a table ``enrol_id, test_id`` (str), ``target`` (int8), ``score`` (float).

    Raises InputError for a missing file or column, a label that is not 0 or 1, a score that is no finite number, and
    when targets or non-targets are missing; a fault is named by its line.
    """
    if not path.is_file():
        raise InputError(f"{path}: the score file is missing")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a CSV with the columns {', '.join(COLUMNS)}: {error}") from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing")
    _check_rows(path, "target", "0 or 1", table, table["target"].isin(["0", "1"]))
    score = pd.to_numeric(table["score"], errors="coerce")
    _check_rows(path, "score", "a finite number", table, np.isfinite(score))
    check_both_kinds((table["target"] == "1").to_numpy(), str(path))
    return table[COLUMNS].astype({"target": np.int8, "score": np.float64})


def _check_rows(path: Path, column: str, expected: str, table: pd.DataFrame, sound: pd.Series) -> None:
    """Raise InputError naming the first line whose value is not sound."""
    if not sound.all():
        row = int(np.argmin(sound))
        raise InputError(f"{path}, line {row + 2}: expected {expected} as {column}, found {table[column].iloc[row]!r}")
