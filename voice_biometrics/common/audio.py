"""Read audio as mono at a given sample rate, with libsndfile.

Without PyTorch, so that training and inference share the code.
"""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from voice_biometrics.common.errors import InputError

ADVICE = "repair or remove the file (--check_audio True skips such training files)"


def read_audio(
    path: str | Path, sample_rate: int, start: int = 0, stop: int | None = None, speed: float = 1.0
) -> np.ndarray:
    """Return the samples ``start`` to ``stop`` (at the file's own rate) of ``path``.

    Returns float32 (samples,) in [-1, 1] at ``sample_rate`` Hz; channels are averaged, other rates
    resampled. ``speed`` changes the playback speed (tempo and pitch). Raises InputError when the file is missing,
    unreadable, shorter than ``stop``, not finite, or entirely zero.
    """
    try:
        samples, file_rate = soundfile.read(path, start=start, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: expected readable audio, found: {error}; {ADVICE}") from error
    expected = None if stop is None else stop - start
    if not len(samples) or (expected is not None and len(samples) != expected):
        raise InputError(f"{path}: expected {expected or 'some'} samples, found {len(samples)}: truncated; {ADVICE}")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)  # (samples,); skips a slow mean
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: expected finite samples, found NaN or infinite ones; {ADVICE}")
    if not mono.any() and is_silent(path):
        raise InputError(f"{path}: expected speech, found only zeros; {ADVICE}")
    return resample(mono, file_rate * speed, sample_rate)


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Resample ``samples`` (samples,) from one rate to another (Hz)."""
    return samples if from_rate == to_rate else soxr.resample(samples, from_rate, to_rate)


def is_silent(path: str | Path) -> bool:
    """Return True if every sample of the file is zero."""
    return not any(block.any() for block in soundfile.blocks(path, blocksize=1 << 20, dtype="float32"))


def repeat_to(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Repeat ``samples`` (samples,) up to ``num_samples``; longer input is returned unchanged.

    Repeating preserves the mean and variance of the features; zeros would pull them towards silence.
    """
    missing = num_samples - samples.size
    return np.pad(samples, (0, missing), mode="wrap") if missing > 0 else samples
