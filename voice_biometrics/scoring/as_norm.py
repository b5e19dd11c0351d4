"""Score normalisation with a cohort of other speakers, usually training speakers: mean subtraction and AS-norm.

Mean subtraction removes the mean embedding of the cohort before the cosine. AS-norm compares each utterance with the
cohort members most similar to it, and expresses a score in standard deviations above their scores. Both are computed
per utterance: one matrix product with the cohort and a partial sort, in blocks of bounded memory.

Source: Cumani et al. 2011, "Comparison of speaker recognition approaches for real applications" (AS-norm); Matejka et
al. 2017, "Analysis of score normalization in multilingual speaker recognition" (AS-norm1, used here: each side has its
own nearest cohort).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring.cosine import cosine_scores, normalise_lengths

SCORES_PER_BLOCK = 2**24  # 64 MiB of single precision


def check_other_speakers(what: str, speakers: Iterable[str], trial_speakers: Iterable[str]) -> None:
    """Raise InputError, naming the first, when a speaker of ``what`` ("the cohort", say) is in the trials as well."""
    shared = sorted(set(speakers) & set(trial_speakers))
    if shared:
        raise InputError(
            f"speaker {shared[0]} is in {what} and in the trials ({len(shared)} such speakers): {what} must have other "
            "speakers than the trials, or the figures are optimistic; leave these out"
        )


def average_by_group(
    embeddings: np.ndarray, groups: Sequence[str] | np.ndarray, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Average the length-normalised embeddings of each group, and scale the averages to length 1.

    Arguments
    ---------
    embeddings : (utterances, dims) float.
    groups : (utterances,) such as speakers, or models enrolled with several utterances.
    names : (utterances,) names of the rows for errors; default: row numbers.

    Returns
    -------
    The averages (groups, dims), and the names of the groups (groups,), sorted.

    Raises
    ------
    InputError : an embedding is not finite or all zero, or the embeddings of a group cancel out.
    """
    unit = normalise_lengths(embeddings, names)
    group_names, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(group[order]) > 0))
    sums = np.add.reduceat(unit[order], starts, axis=0)  # (groups, dims)
    return normalise_lengths(sums, [f"group {name}" for name in group_names]), group_names


def subtract_cohort_mean(embeddings: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """Return the embeddings (utterances, dims) minus the mean of the cohort's (cohort, dims), none of them normalised.

    Raises InputError when the mean is not finite.
    """
    mean = cohort.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError("the mean of the cohort's embeddings is not finite: look for NaN or infinity among them")
    return embeddings - mean.astype(embeddings.dtype)


def cohort_statistics(
    embeddings: np.ndarray, cohort: np.ndarray, top_k: int, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and sample deviation (n - 1) of each utterance's ``top_k`` highest cosines with the cohort.

    Arguments
    ---------
    embeddings : (utterances, dims) float; every utterance of the trials once.
    cohort : (cohort, dims) float, of utterances, or of speakers by ``average_by_group``.
    top_k : number of most similar cohort members to use, 2 to all; 300 is usual.
    names : (utterances,) names of the rows for errors; default: row numbers.

    Returns
    -------
    (utterances,) float64 each.

    Raises
    ------
    InputError : the cohort is smaller than ``top_k``, ``top_k`` is below 2, an embedding is not finite or all zero, or
        an utterance has the same score with all of its nearest cohort.
    """
    if not 2 <= top_k <= len(cohort):
        raise InputError(
            f"top_k is {top_k} for a cohort of {len(cohort)}: expected 2 to the size of the cohort; use a larger "
            "cohort or a smaller top_k"
        )
    unit, cohort = normalise_lengths(embeddings, names), normalise_lengths(cohort)
    mean, deviation = np.empty(len(unit)), np.empty(len(unit))
    rows_per_block = max(1, SCORES_PER_BLOCK // len(cohort))
    for start in range(0, len(unit), rows_per_block):
        rows = slice(start, start + rows_per_block)
        scores = unit[rows] @ cohort.T  # (rows, cohort)
        scores.partition(len(cohort) - top_k, axis=1)
        nearest = scores[:, len(cohort) - top_k :].astype(np.float64)
        mean[rows], deviation[rows] = nearest.mean(axis=1), nearest.std(axis=1, ddof=1)
    flat = deviation < np.finfo(unit.dtype).eps
    if flat.any():
        first = int(np.argmax(flat))
        name = f"row {first}" if names is None else names[first]
        raise InputError(
            f"utterance {name} has the same score ({mean[first]:.6f}) with all {top_k} of its nearest cohort: "
            "does the cohort repeat one utterance?"
        )
    return mean, deviation


def as_norm_scores(
    embeddings: np.ndarray,
    enrol_index: np.ndarray,
    test_index: np.ndarray,
    cohort: np.ndarray,
    top_k: int,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the AS-norm of each trial, (trials,) float64: the average of its standard scores by both cohorts.

    Arguments, Raises: as ``cosine_scores`` and ``cohort_statistics``; ``embeddings`` has both sides of the trials.
    """
    scores = cosine_scores(embeddings, enrol_index, test_index, names)
    mean, deviation = cohort_statistics(embeddings, cohort, top_k, names)
    enrol = (scores - mean[enrol_index]) / deviation[enrol_index]
    test = (scores - mean[test_index]) / deviation[test_index]
    return (enrol + test) / 2.0
