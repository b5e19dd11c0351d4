"""Cosine scores of trials, in blocks of matrix products.

Memory is bounded: besides the normalised copy of the embeddings and arrays of the size of the trial list, a block holds
at most ``TRIALS_PER_BLOCK / MIN_FILLED_SHARE`` products (128 MiB in float32).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError

TRIALS_PER_BLOCK = 2**20
MIN_FILLED_SHARE = 1 / 32  # below this share of wanted cells a product per trial is cheaper than a matrix product
ROWS_PER_GATHER = 2048  # pairs of embeddings copied side by side at a time, small enough for the cache


def score_trials(embeddings: np.ndarray, utt_ids: pd.Index, trials: pd.DataFrame) -> pd.DataFrame:
    """Return ``trials`` with the column ``score``: the cosine of the embeddings (utterances, dims) of ``utt_ids``.

    Every ``enrol_id`` and ``test_id`` must be in ``utt_ids``, as ``common.trial_lists.resolve_trials`` ensures.
    """
    enrol, test = utt_ids.get_indexer(trials["enrol_id"]), utt_ids.get_indexer(trials["test_id"])
    scores = cosine_scores(embeddings, enrol, test, names=utt_ids.tolist())
    return trials.assign(score=scores.astype(np.float64))  # as a score file returns them, to the last digit


def cosine_scores(
    embeddings: np.ndarray,
    enrol_index: np.ndarray,
    test_index: np.ndarray,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the cosine similarity of the two embeddings of each trial, in the order of the trials.

    Trials are sorted by enrolment and cut into blocks. If a block fills its (enrolments, tests) table well, it is one
    matrix product from which the trials are picked, otherwise a row-by-row product.

    Arguments
    ---------
    embeddings : (utterances, dims) float of any length; float64 stays, other types become float32.
    enrol_index, test_index : (trials,) int, rows of ``embeddings``.
    names : (utterances,) names of the rows for errors, such as IDs; default: row numbers.

    Returns
    -------
    (trials,) float32 or float64 in [-1, 1], within 1e-6 of the cosine computed per trial.

    Raises
    ------
    InputError : an embedding is not finite or all zero.
    ValueError : an index is not a row of ``embeddings``.
    """
    unit = normalise_lengths(embeddings, names)
    enrol, test = np.asarray(enrol_index), np.asarray(test_index)
    for index in (enrol, test):
        if index.shape != enrol.shape or (index.size and not 0 <= index.min() <= index.max() < len(unit)):
            raise ValueError(f"indices {enrol.shape} and {test.shape}: expected rows of {len(unit)} embeddings")
    order = None if (enrol[1:] >= enrol[:-1]).all() else np.argsort(enrol)
    scores = np.empty(enrol.size, unit.dtype)
    for start in range(0, enrol.size, TRIALS_PER_BLOCK):
        block = slice(start, start + TRIALS_PER_BLOCK)
        trials = block if order is None else order[block]
        scores[trials] = _score_block(unit, enrol[trials], test[trials])
    return np.clip(scores, -1.0, 1.0, out=scores)


def normalise_lengths(embeddings: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Return the embeddings scaled to length 1.

    Arguments
    ---------
    embeddings : (utterances, dims) float; float64 stays, other types become float32.
    names : (utterances,) names of the rows for errors; default: row numbers.

    Raises InputError, naming the first, when a row is not finite or all zero.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype != np.float64:
        embeddings = embeddings.astype(np.float32, copy=False)
    peak = np.maximum(embeddings.max(axis=1, initial=0.0), -embeddings.min(axis=1, initial=0.0))  # (utterances,)
    usable = np.isfinite(peak) & (peak > 0.0)
    if not usable.all():
        first = int(np.argmin(usable))
        found = "is all zero" if peak[first] == 0.0 else "has a value that is not finite"
        name = f"row {first} (counted from 0)" if names is None else names[first]
        raise InputError(f"the embedding of {name} {found}: check its audio, or leave it out")
    unit = embeddings / peak[:, None]  # first by the peak, so that no square overflows or vanishes
    unit /= np.sqrt(np.vecdot(unit, unit))[:, None]
    return unit


def _score_block(unit: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Score trials sorted by enrolment: unit (utterances, dims), enrol and test (trials,) -> (trials,)."""
    starts_row = np.append(True, enrol[1:] != enrol[:-1])
    rows = enrol[starts_row]
    in_block = np.zeros(len(unit), bool)
    in_block[test] = True
    columns = np.flatnonzero(in_block)
    if enrol.size < MIN_FILLED_SHARE * rows.size * columns.size:
        return _score_pairs(unit, enrol, test)
    column_of = np.empty(len(unit), np.int64)
    column_of[columns] = np.arange(columns.size)
    products = unit[rows] @ unit[columns].T  # (enrolments, tests)
    cells = (np.cumsum(starts_row) - 1) * columns.size + column_of[test]
    return products.ravel()[cells]


def _score_pairs(unit: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Score each trial by the product of its two embeddings -> (trials,)."""
    scores = np.empty(enrol.size, unit.dtype)
    for start in range(0, enrol.size, ROWS_PER_GATHER):
        some = slice(start, start + ROWS_PER_GATHER)
        scores[some] = np.vecdot(unit[enrol[some]], unit[test[some]])
    return scores
