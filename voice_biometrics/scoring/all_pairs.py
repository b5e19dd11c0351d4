"""All pairs of many embeddings as trials: cosine scores, counted in histograms and never stored.

Memory: the embeddings, whatever the number of processes, which share a file of them; and in each process blocks of 2
million scores.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.errors import InputError
from voice_biometrics.metrics.histograms import NUM_BINS, ScoreHistogram, count_scores
from voice_biometrics.scoring.cosine import normalise_lengths

ROWS, COLUMNS = 1024, 2048  # of a block of scores
DIMS = 16  # of the embeddings, sorted at a time: a cache line


def all_pairs_histogram(embeddings: np.ndarray, speakers: np.ndarray, num_processes: int = 1) -> ScoreHistogram:
    """Return the histogram of the scores of all pairs of different utterances, with a progress bar.

    Arguments
    ---------
    embeddings : (utterances, dims) float32, of any length. They are overwritten, which saves the memory of a copy.
    speakers : (utterances,) their speakers.
    num_processes : that compute side by side, each with one thread.

    Raises
    ------
    InputError : an embedding is not finite or zero, or there are no target or no non-target trials.
    """
    if num_processes < 1:
        raise InputError(f"--processes {num_processes}: expected at least 1")
    codes = pd.factorize(speakers)[0]
    order = np.argsort(codes, kind="stable")  # target trials are then in blocks along the diagonal
    _normalise_and_sort(embeddings, order)
    pairs = PairsOfRows(embeddings, codes[order])
    starts = range(0, len(codes), ROWS)
    counts = np.zeros((2, NUM_BINS), np.int64)  # of all trials, and of target trials
    with tqdm(total=len(codes) * (len(codes) - 1) // 2, desc="pairs", unit="", unit_scale=True) as bar:
        for found in _counted(pairs, starts, num_processes):
            counts += found
            bar.update(int(found[0].sum()))
    return ScoreHistogram(target=counts[1], nontarget=counts[0] - counts[1])


def _normalise_and_sort(embeddings: np.ndarray, order: np.ndarray) -> None:
    """Scale embeddings to length 1, and put row ``order[k]`` in row k, without a copy of all of them."""
    for start in range(0, len(embeddings), ROWS):
        rows = embeddings[start : start + ROWS]
        rows[:] = normalise_lengths(rows, [f"row {start + row} (from 0)" for row in range(len(rows))])
    for left in range(0, embeddings.shape[1], DIMS):
        embeddings[:, left : left + DIMS] = embeddings[order, left : left + DIMS]


class PairsOfRows:
    """Counts the pairs of some rows with all later ones.

    unit : (utterances, dims) float32, each of length 1. codes : (utterances,) int, speakers; sorted.
    """

    def __init__(self, unit: np.ndarray, codes: np.ndarray) -> None:
        self.unit, self.codes = unit, codes

    def __call__(self, start: int) -> np.ndarray:
        """Return the counts of all and of target trials, (2, NUM_BINS), of rows ``start`` to ``start + ROWS``."""
        counts = np.zeros((2, NUM_BINS), np.int64)
        rows, row_codes = self.unit[start : start + ROWS], self.codes[start : start + ROWS]
        for left in range(start, len(self.unit), COLUMNS):
            scores = rows @ self.unit[left : left + COLUMNS].T  # (rows, columns)
            if left < start + ROWS:  # the diagonal: each pair once, none with itself
                later = np.arange(scores.shape[1]) + left > np.arange(start, start + len(rows))[:, None]
            else:
                later = None
            codes = self.codes[left : left + COLUMNS]
            if codes[0] <= row_codes[-1]:
                is_target = row_codes[:, None] == codes
                counts[1] += count_scores(scores[is_target if later is None else is_target & later])
            counts[0] += count_scores(scores if later is None else scores[later])
        return counts


_pairs: PairsOfRows  # of a worker process


def _counted(pairs: PairsOfRows, starts: Iterable[int], num_processes: int) -> Iterator[np.ndarray]:
    if num_processes == 1:
        yield from map(pairs, starts)
        return
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read by the processes that start now
    context = multiprocessing.get_context("spawn")
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, pairs.unit)
        file.flush()
        with ProcessPoolExecutor(num_processes, context, _start_worker, (file.name, pairs.codes)) as pool:
            yield from pool.map(_count_rows, starts)


def _start_worker(unit_file: str, codes: np.ndarray) -> None:
    global _pairs
    _pairs = PairsOfRows(np.load(unit_file, mmap_mode="r"), codes)


def _count_rows(start: int) -> np.ndarray:
    return _pairs(start)
