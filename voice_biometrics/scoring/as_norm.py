"""Scores made comparable with the help of a cohort: speakers outside the trials, usually those of the training set.

Mean subtraction takes the cohort's mean embedding away before the cosine. AS-norm asks of each utterance how it scores
against the cohort's utterances (or speakers) most like it, and measures a trial's score in deviations from that. Both
are per utterance, so a list of trials costs one matrix product of its utterances with the cohort and a partial sort,
in blocks of bounded memory, however many trials there are.

Source: Cumani et al. 2011, "Comparison of speaker recognition approaches for real applications" (AS-norm); Matejka et
al. 2017, "Analysis of score normalization in multilingual speaker recognition" (AS-norm1, used here: each side has its
own nearest cohort).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring.cosine import cosine_scores, normalise_lengths

SCORES_PER_BLOCK = 2**24  # 64 MiB of single precision


@dataclass(frozen=True, eq=False)
class CohortStatistics:
    """How each utterance scores against its nearest cohort.

    mean, deviation : (utterances,) float64; the deviation is that of a sample (n - 1) and above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray


def check_other_speakers(what: str, speakers: Iterable[str], trial_speakers: Iterable[str]) -> None:
    """Raise InputError, naming the first, when a speaker of ``what`` ("the cohort", say) is in the trials as well."""
    shared = sorted(set(speakers) & set(trial_speakers))
    if shared:
        raise InputError(
            f"speaker {shared[0]} is in {what} and in the trials ({len(shared)} such speakers): {what} must be of "
            "other speakers than the trials, or the figures flatter; leave these out"
        )


def average_by_group(
    embeddings: np.ndarray, groups: Sequence[str] | np.ndarray, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Average the embeddings of each group, each scaled to length 1 first, and scale the averages to length 1.

    For a speaker enrolled with several utterances (a group a model), and for a cohort of speakers.

    Arguments
    ---------
    embeddings : (utterances, dims) float.
    groups : (utterances,) the group of each, e.g. its ``spk_id``.
    names : (utterances,) what to call each row in an error; its number if not given.

    Returns
    -------
    The averages (groups, dims), and the groups' names (groups,), sorted.

    Raises
    ------
    InputError : an embedding is not finite or all zero, one group per embedding is not given, or embeddings cancel out.
    """
    unit = normalise_lengths(embeddings, names)
    groups = np.asarray(groups)
    if groups.shape != (len(unit),):
        raise InputError(f"{groups.shape} groups for {len(unit)} embeddings: give one group per embedding")
    if not groups.size:
        raise InputError("no embeddings to average: give one or more")
    group_names, group = np.unique(groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(group[order]) > 0))
    sums = np.add.reduceat(unit[order], starts, axis=0)  # (groups, dims)
    return normalise_lengths(sums, [f"group {name}" for name in group_names]), group_names


def subtract_cohort_mean(embeddings: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """Return the embeddings (utterances, dims) less the mean of the cohort's (cohort, dims), neither scaled.

    Raises InputError when the cohort is empty, not finite, or of other dimensions.
    """
    embeddings, cohort = _same_dims(embeddings, cohort)
    mean = cohort.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise InputError("the mean of the cohort's embeddings is not finite: look for NaN or infinity among them")
    return embeddings - mean.astype(embeddings.dtype)


def cohort_statistics(
    embeddings: np.ndarray,
    cohort: np.ndarray,
    top_k: int,
    names: Sequence[str] | None = None,
    cohort_names: Sequence[str] | None = None,
) -> CohortStatistics:
    """Return mean and deviation of each utterance's ``top_k`` highest cosines with the cohort.

    Arguments
    ---------
    embeddings : (utterances, dims) float; every utterance of the trials once.
    cohort : (cohort, dims) float, of utterances, or of speakers by ``average_by_group``.
    top_k : how many of the cohort, those most like the utterance, to look at; 2 to all of it. 300 is usual.
    names, cohort_names : what to call each row in an error; its number if not given.

    Raises
    ------
    InputError : the cohort is smaller than ``top_k``, ``top_k`` is below 2, dimensions differ, an embedding is not
        finite or all zero, or an utterance scores the same against all of its nearest cohort.
    """
    embeddings, cohort = _same_dims(embeddings, cohort)
    if not 2 <= top_k <= len(cohort):
        raise InputError(
            f"top_k is {top_k} for a cohort of {len(cohort)}: AS-norm looks at 2 or more, at most all of the cohort; "
            "give a larger cohort or a smaller top_k"
        )
    unit, cohort = normalise_lengths(embeddings, names), normalise_lengths(cohort, cohort_names)
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
            f"utterance {name} scores the same ({mean[first]:.6f}) against all {top_k} of its nearest cohort: "
            "is the cohort one utterance many times over?"
        )
    return CohortStatistics(mean, deviation)


def as_norm(
    scores: np.ndarray,
    enrol_index: np.ndarray,
    test_index: np.ndarray,
    statistics: CohortStatistics,
    test_statistics: CohortStatistics | None = None,
) -> np.ndarray:
    """Return the mean of each score in deviations above its enrolment's and above its test utterance's cohort mean.

    Arguments
    ---------
    scores : (trials,) float, cosines.
    enrol_index, test_index : (trials,) int, rows of the statistics.
    statistics : of the enrolment side, and of the test side where ``test_statistics`` is not given.

    Returns
    -------
    (trials,) float64.
    """
    test_statistics = statistics if test_statistics is None else test_statistics
    enrol = (scores - statistics.mean[enrol_index]) / statistics.deviation[enrol_index]
    test = (scores - test_statistics.mean[test_index]) / test_statistics.deviation[test_index]
    return (enrol + test) / 2.0


def as_norm_scores(
    embeddings: np.ndarray,
    enrol_index: np.ndarray,
    test_index: np.ndarray,
    cohort: np.ndarray,
    top_k: int,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the AS-normalised cosine of each trial: ``cosine_scores``, ``cohort_statistics`` and ``as_norm``.

    Arguments and errors are those of these three; ``embeddings`` holds both sides, averaged models included.
    """
    scores = cosine_scores(embeddings, enrol_index, test_index, names)
    return as_norm(scores, enrol_index, test_index, cohort_statistics(embeddings, cohort, top_k, names))


def _same_dims(embeddings: np.ndarray, cohort: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, or raise InputError when they are no tables of the same width, or the cohort is empty."""
    embeddings, cohort = np.asarray(embeddings), np.asarray(cohort)
    if embeddings.ndim != 2 or cohort.ndim != 2 or embeddings.shape[1] != cohort.shape[1]:
        raise InputError(
            f"embeddings have shape {embeddings.shape}, the cohort {cohort.shape}: expected (utterances, dims) and "
            "(cohort, dims) from the same model"
        )
    if not len(cohort):
        raise InputError("the cohort is empty: give embeddings of speakers outside the trials")
    return embeddings, cohort
