"""Embeddings and a list of trials to one cosine score per trial, as blocks of matrix products.

Memory is bounded: beside the normalised copy of the embeddings and the arrays of the size of the trial list,
a block holds at most ``TRIALS_PER_BLOCK / MIN_FILLED_SHARE`` products (128 MiB in float32).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError

TRIALS_PER_BLOCK = 2**20
MIN_FILLED_SHARE = 1 / 32  # under this share of wanted cells, a product per trial is cheaper than a matrix product
ROWS_PER_GATHER = 2048  # pairs of embeddings copied side by side at a time, small enough for the cache


def cosine_scores(
    embeddings: np.ndarray,
    enrol_index: np.ndarray,
    test_index: np.ndarray,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the cosine similarity of each trial's two embeddings, in the order of the trials.

    Trials are sorted by enrolment and cut into blocks. A block that fills its (enrolments, tests) table well
    is one matrix product from which the trials are picked; a sparse one is a row-by-row product.

    Arguments
    ---------
    embeddings : (utterances, dims) float of any length, normalised here; float64 stays, others become float32.
    enrol_index, test_index : (trials,) int, rows of ``embeddings``.
    names : (utterances,) what to call each row in an error, e.g. its ``utt_id``; its number if not given.

    Returns
    -------
    (trials,) float32 or float64 in [-1, 1], within 1e-6 of the cosine computed per trial.

    Raises
    ------
    InputError : an embedding is not finite or all zero, or an index is no row; the message names the item.
    """
    unit = normalise_lengths(embeddings, names)
    enrol, test = _checked_index("enrolment", enrol_index, len(unit)), _checked_index("test", test_index, len(unit))
    if enrol.shape != test.shape:
        raise InputError(f"{enrol.size} enrolment and {test.size} test rows: give one of each per trial")
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
    embeddings : (utterances, dims) float; float64 stays float64, everything else becomes float32.
    names : (utterances,) what to call each row in an error; its number if not given.

    Raises
    ------
    InputError : not a table, or a row is not finite or all zero; the message names the first such row.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2:
        raise InputError(f"embeddings have shape {embeddings.shape}: expected (utterances, dims)")
    if names is not None and len(names) != len(embeddings):
        raise InputError(f"{len(names)} names for {len(embeddings)} embeddings: give one name per row")
    if embeddings.dtype != np.float64:
        embeddings = embeddings.astype(np.float32, copy=False)
    peak = np.abs(embeddings).max(axis=1, initial=0.0)  # (utterances,)
    usable = np.isfinite(peak) & (peak > 0.0)
    if not usable.all():
        first = int(np.argmin(usable))
        found = "is all zero" if peak[first] == 0.0 else "has a value that is not finite"
        raise InputError(f"the embedding of {_row_name(first, names)} {found}: look at its audio, or leave it out")
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
    """Score each trial by the product of its own two embeddings -> (trials,)."""
    scores = np.empty(enrol.size, unit.dtype)
    for start in range(0, enrol.size, ROWS_PER_GATHER):
        some = slice(start, start + ROWS_PER_GATHER)
        scores[some] = np.vecdot(unit[enrol[some]], unit[test[some]])
    return scores


def _checked_index(side: str, index: np.ndarray, num_utterances: int) -> np.ndarray:
    """Return the index as an array, or raise InputError naming the first trial that points to no embedding."""
    index = np.asarray(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise InputError(
            f"the {side} index has shape {index.shape} and type {index.dtype}: expected one whole number per trial"
        )
    outside = (index < 0) | (index >= num_utterances)
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(
            f"trial {first} (counted from 0) asks for {side} embedding {index[first]}, "
            f"but there are {num_utterances}, counted from 0"
        )
    return index.astype(np.int64, copy=False)


def _row_name(row: int, names: Sequence[str] | None) -> str:
    """The caller's name of an embedding, or its number."""
    return f"row {row} (counted from 0)" if names is None else f"{names[row]} (row {row})"


def score_trials(embeddings: np.ndarray, utt_ids: pd.Index, trials: pd.DataFrame) -> pd.DataFrame:
    """Return ``trials`` with the column ``score``: the cosine of the embeddings (utterances, dims) of ``utt_ids``.

    Every ``enrol_id`` and ``test_id`` must be among ``utt_ids``
    (``voice_biometrics.common.trial_lists.resolve_trials`` sees to it).
    """
    enrol, test = utt_ids.get_indexer(trials["enrol_id"]), utt_ids.get_indexer(trials["test_id"])
    scores = cosine_scores(embeddings, enrol, test, names=utt_ids.tolist())
    return trials.assign(score=scores.astype(np.float64))  # as a score file gives them back, to the last digit
