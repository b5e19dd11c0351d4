"""Utterances to embeddings, in batches of equal length, so that none depends on the others of its batch."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError

FRONT_TO_EMBEDDING = ("compute_features", "mean_var_norm", "embedding_model")  # modules of a run
MIN_DURATION_S = 0.5  # shorter utterances are repeated: the network's kernels need some frames
MAX_BATCH_S = 60.0  # audio in one batch, seconds

AUTO = "auto"
MAX_WORKERS = 8  # more read faster than a GPU trains

Waves = TypeVar("Waves")  # a batch of audio, in any form
Alter = Callable[[np.ndarray, int, str], np.ndarray]  # samples, Hz, utterance ID -> samples


def resolve_num_workers(num_workers: int | str, device: str) -> int:
    """Return the number of loading processes: ``num_workers``, or with ``auto`` what suits the cores.

    On a CPU none: all cores compute. On a GPU the cores that each training process has, at most ``MAX_WORKERS``. Raises
    InputError if it is no count.
    """
    if num_workers != AUTO:
        if not str(num_workers).isdecimal():
            raise InputError(f"num_workers: expected auto or a number from 0, found {num_workers}")
        return int(num_workers)
    if torch.device(device).type == "cpu":
        return 0
    return min(MAX_WORKERS, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


class Utterances(Dataset):
    """Whole utterances of a manifest by row, optionally altered: (samples,) float32."""

    def __init__(self, manifest: pd.DataFrame, sample_rate: int, alter: Alter | None) -> None:
        self.rows = list(zip(manifest["ID"], manifest["wav"], manifest["start"], manifest["stop"], strict=True))
        self.sample_rate = sample_rate
        self.alter = alter

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        utt_id, wav, start, stop = self.rows[index]
        samples = read_audio(wav, self.sample_rate, start, stop)
        if self.alter:
            samples = self.alter(samples, self.sample_rate, utt_id)
        return index, repeat_to(samples, round(MIN_DURATION_S * self.sample_rate))


@torch.inference_mode()
def embed(modules: torch.nn.ModuleDict, waves: torch.Tensor) -> np.ndarray:
    """Return the embeddings, float32 (utterances, dims), of ``waves`` (utterances, samples), all of the same length."""
    lengths = torch.ones(len(waves), device=waves.device)
    features = modules["compute_features"](waves)  # (utterances, frames, features)
    features = modules["mean_var_norm"](features, lengths)
    embeddings = modules["embedding_model"](features, lengths)  # (utterances, 1, dims)
    return embeddings.squeeze(1).float().cpu().numpy()


def embed_manifest(
    modules: torch.nn.ModuleDict,
    manifest: pd.DataFrame,
    sample_rate: int,
    device: str,
    num_workers: int = 0,
    alter: Alter | None = None,
    segment_s: float = 0.0,
    progress: tqdm | None = None,
) -> np.ndarray:
    """Return the embeddings, float32 (utterances, dims), of a manifest in its order, with a progress bar.

    Arguments
    ---------
    modules : ``compute_features``, ``mean_var_norm`` and ``embedding_model``; set to evaluation mode.
    alter : applied to each utterance after reading, such as a ``Condition``.
    segment_s : longer utterances (seconds) are embedded in evenly spaced segments of this length, which are averaged;
        0: all utterances whole.
    progress : a bar to update instead of one for this manifest.

    Raises InputError, naming the utterance, when one cannot be read or its embedding is not finite.
    """
    if segment_s and segment_s < MIN_DURATION_S:
        raise InputError(f"segment_s is {segment_s}: expected 0 (whole utterances) or at least {MIN_DURATION_S} s")
    modules.eval()
    by_length = manifest["duration"].to_numpy().argsort(kind="stable")
    loader = DataLoader(
        Utterances(manifest, sample_rate, alter), batch_size=None, sampler=by_length.tolist(), num_workers=num_workers
    )
    segments = _segments(loader, round(segment_s * sample_rate))
    batches = _equal_lengths(segments, MAX_BATCH_S * sample_rate)
    found: dict[int, list[np.ndarray]] = {}
    own_bar = partial(tqdm, total=len(manifest), desc="embeddings", unit="utt", dynamic_ncols=True)
    with own_bar() if progress is None else nullcontext(progress) as bar:
        for rows, batch in computed_side_by_side(lambda waves: embed(modules, waves.to(device)), batches, device):
            bar.update(len(set(rows) - found.keys()))
            for row, embedding in zip(rows, batch, strict=True):
                found.setdefault(row, []).append(embedding)
    embeddings = np.stack([np.mean(found[row], axis=0) for row in range(len(manifest))])
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise InputError(f"utterance {manifest['ID'].iloc[int(np.argmin(finite))]}: its embedding is not finite")
    return embeddings


def computed_side_by_side(
    compute: Callable[[Waves], np.ndarray], batches: Iterable[tuple[list[int], Waves]], device: str
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Apply ``compute`` to each batch and yield (rows, result) in order.

    On a CPU several batches are computed in parallel with one thread each, which takes half the time, since one
    utterance is too small to share between threads; also with the threads of other training processes, which wait
    meanwhile. Only a few batches are kept in memory.
    """
    own_threads = torch.get_num_threads()
    num_threads = own_threads * int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if torch.device(device).type == "cpu" else 1
    waiting: deque[tuple[list[int], Future]] = deque()
    initializer = torch.set_num_threads if num_threads > 1 else None
    try:
        with ThreadPoolExecutor(num_threads, initializer=initializer, initargs=(1,) if initializer else ()) as pool:
            for rows, waves in batches:
                waiting.append((rows, pool.submit(compute, waves)))
                if len(waiting) > 4 * num_threads:
                    rows, result = waiting.popleft()
                    yield rows, result.result()
            for rows, result in waiting:
                yield rows, result.result()
    finally:
        torch.set_num_threads(own_threads)


def _segments(utterances: Iterable[tuple[int, np.ndarray]], num_samples: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut utterances longer than ``num_samples`` (0: none) into evenly spaced segments of this length, row by row."""
    for row, samples in utterances:
        size = num_samples or len(samples)
        for start in np.linspace(0, max(0, len(samples) - size), max(1, math.ceil(len(samples) / size))):
            yield int(row), samples[round(start) : round(start) + size]


def _equal_lengths(
    utterances: Iterable[tuple[int, np.ndarray]], max_samples: float
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Group consecutive utterances of the same length into batches (rows, waves of (utterances, samples))."""
    rows: list[int] = []
    waves: list[torch.Tensor] = []
    for row, samples in utterances:
        wave = torch.as_tensor(samples)
        if rows and (wave.numel() != waves[0].numel() or (len(rows) + 1) * wave.numel() > max_samples):
            yield rows, torch.stack(waves)
            rows, waves = [], []
        rows.append(row)
        waves.append(wave)
    if rows:
        yield rows, torch.stack(waves)
