"""Read audio as mono at a given sample rate, with libsndfile.

Without PyTorch, so that training and inference share the code. A path may name a file within a tar file, as manifests
of shards do (``data_prep.shards``): ``train-000007.tar:1536:48044``, its first byte and its number of bytes.
"""

import functools
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voice_biometrics.common.audio_headers import (
    FOREIGN_HEAD_BYTES,
    MOST_FRAMES,
    foreign_content,
    mp3_without_guess,
    repaired_wav,
)
from voice_biometrics.common.errors import InputError

ADVICE = "repair or remove the file (--check_audio True skips such training files)"

WAV_FORMATS = ("WAV", "WAVEX")
CLAIMED_SIZE = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)$", re.MULTILINE)
UNKNOWN_SIZE = 0x7FFF0000  # writers of streams put this size or a larger one in the header
TOLERATED_BYTES = 64  # some writers count the header as data
FRAMES_AT_ONCE = 1 << 18
MOST_REPAIRED_BYTES = 2**28  # of a descriptor
TAR_MEMBER = re.compile(r"(.+\.tar):(\d+):(\d+)")
MOST_OPEN_TARS = 256
CANCELLING = 0.1  # channels whose mean has less than this fraction of their RMS (-20 dB) are not averaged
CHANNEL = re.compile(r"(.+)#channel=(\d+)")  # a path in a manifest that names a channel, from 1
LOW_HZ = 40.0  # below any voice
MAX_LOW_DB = -17.0  # 250 recordings of speechocean762: -18.4 or less; with rumble of 0.02 (peak 0.5): -16.3 or more
SAME_SOUND = 0.6  # correlation of the levels of two channels; one person at two random microphones: 0.75 or more
STRONG_LOW = "strong energy below the voice (an offset or rumble): use a high-pass filter or another microphone"
DIFFERENT_SOUNDS = "different sounds on its channels, such as two people: choose one channel"
LEVEL_FRAME_S, LEVEL_RANGE_DB = 0.1, 40.0


class ForwardSoundFile(soundfile.SoundFile):
    """A file that is only read forwards: soundfile seeks after each read, which fails if a header is wrong."""

    def seekable(self) -> bool:
        """Return False."""
        return False


def read_audio(
    path: str | Path, sample_rate: int, start: int = 0, stop: int | None = None, speed: float = 1.0
) -> np.ndarray:
    """Return the samples ``start`` to ``stop`` (at the file's own rate) of ``path``.

    Returns float32 (samples,) in [-1, 1] at ``sample_rate`` Hz; channels are mixed (``mix_down``), other rates
    resampled. ``<path>#channel=2`` is one of them. ``speed`` changes the playback speed (tempo and pitch). Raises
    InputError when the file is missing, unreadable, shorter than ``stop``, not finite, or entirely zero.
    """
    path, channel = split_channel(path)
    try:
        file_rate, samples = _read_part(path, start, stop)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(
            f"{path}: expected readable audio, found {unreadable_reason(path, error)}; {ADVICE}"
        ) from error
    expected = None if stop is None else stop - start
    if not len(samples) or (expected is not None and len(samples) != expected):
        raise InputError(f"{path}: expected {expected or 'some'} samples, found {len(samples)}: truncated; {ADVICE}")
    mono = mix_down(samples, channel)
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: expected finite samples, found NaN or infinite ones; {ADVICE}")
    if not mono.any() and is_silent(path):
        raise InputError(f"{path}: expected speech, found only zeros; {ADVICE}")
    return resample(mono, file_rate * speed, sample_rate)


def _read_part(path: str | Path, start: int, stop: int | None) -> tuple[int, np.ndarray]:
    """Return the rate (Hz) and the samples ``start`` to ``stop`` of a file, (samples, channels)."""
    with open_audio(path, ForwardSoundFile if stop is None else soundfile.SoundFile) as audio:
        if stop is None:
            return audio.samplerate, np.concatenate([*audio_blocks(audio)] or [np.empty((0, 1), np.float32)])[start:]
        can_seek = audio.seekable() and audio.frames <= MOST_FRAMES  # telephone codecs are read from the start
        first = audio.seek(start) if start and can_seek else 0
        return audio.samplerate, audio.read(stop - first, dtype="float32", always_2d=True)[start - first :]


def audio_blocks(audio: ForwardSoundFile) -> Iterator[np.ndarray]:
    """Yield all samples of an open file, float32 (samples, channels), whatever its header tells of their number."""
    while len(block := audio.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
        yield block


def containing_file(path: str | Path) -> Path:
    """Return the file itself, or the tar file that it is in."""
    return Path(TAR_MEMBER.sub(r"\1", str(split_channel(path)[0])))


def _openable(path: str | Path) -> str | Path | io.BytesIO:
    """Return the path, or the bytes of a file within a tar file; raises OSError."""
    found = TAR_MEMBER.fullmatch(str(path))
    if not found:
        return path
    return io.BytesIO(os.pread(_opened_tar(found[1]).fileno(), int(found[3]), int(found[2])))


@functools.lru_cache(MOST_OPEN_TARS)
def _opened_tar(path: str) -> io.FileIO:
    """Return a tar file that stays open: on a network file system opening one takes longer than reading a crop."""
    return open(path, "rb", buffering=0)


def open_audio(
    source: str | Path | io.BytesIO | int, opener: Callable[..., soundfile.SoundFile] = soundfile.SoundFile
) -> soundfile.SoundFile:
    """Open an audio file; one whose header does not tell its length is read to its end (see ``audio_headers``).

    ``source`` is a path, the bytes of a file, or its descriptor, which stays open. ``frames`` of an MP3 or FLAC without
    a length is more than MOST_FRAMES. Raises soundfile.SoundFileError or OSError.
    """
    source = _openable(source)
    opener = functools.partial(opener, closefd=False) if isinstance(source, int) else opener
    try:
        audio = opener(source)
    except soundfile.SoundFileError:
        if (repaired := _repaired(source)) is None:
            raise
        return opener(io.BytesIO(repaired))
    if (audio.frames and audio.format != "MP3") or (repaired := _repaired(source)) is None:
        return audio
    audio.close()
    return opener(io.BytesIO(repaired))


def _repaired(source: str | Path | io.BytesIO | int) -> bytes | None:
    """Return a WAV or MP3 with a header that tells its length; None if that is not needed or not possible."""
    if isinstance(source, int):
        source = io.BytesIO(os.pread(source, MOST_REPAIRED_BYTES, 0))  # which leaves libsndfile's position
    with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        if file.read(4) in (b"RIFF", b"RF64"):
            file.seek(0)
            return repaired_wav(file.read())
        return mp3_without_guess(file)


def stated_frames(audio: soundfile.SoundFile) -> int:
    """Return the number of frames that the header states, which may be more than the file has."""
    if audio.format in WAV_FORMATS and (sizes := CLAIMED_SIZE.search(audio.extra_info)):
        claimed, actual = map(int, sizes.groups())
        if actual and claimed < UNKNOWN_SIZE and claimed - actual > TOLERATED_BYTES:
            return audio.frames * claimed // actual
    return audio.frames


def split_channel(path: str | Path) -> tuple[str | Path, int]:
    """Return the file and the channel (from 1; 0: all) of a path that may end with ``#channel=2``."""
    match = CHANNEL.fullmatch(str(path))
    return (match[1], int(match[2])) if match else (path, 0)


def mix_down(samples: np.ndarray, channel: int = 0) -> np.ndarray:
    """Return the mean of the channels of ``samples`` (samples, channels), or one of them (from 1), as (samples,).

    Channels that cancel each other, such as one with inverted polarity, are not averaged: the loudest is returned.
    ``samples`` with one channel have only that one to choose.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]  # a mean takes long
    if channel:
        return samples[:, channel - 1]
    mono = samples.mean(axis=1)
    power = np.square(samples).mean(axis=0)
    return samples[:, power.argmax()] if np.square(mono).mean() < CANCELLING**2 * power.max() else mono


def low_and_other_energy(samples: np.ndarray, sample_rate: float) -> np.ndarray:
    """Return the energy below the voice (an offset, rumble) of ``samples`` (samples,), and all other energy."""
    energy = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    low = energy[np.fft.rfftfreq(samples.size, 1 / sample_rate) < LOW_HZ].sum()
    return np.array([low, energy.sum() - low])


def is_low_strong(energies: np.ndarray) -> bool:
    """Return True if the two ``low_and_other_energy`` show energy below the voice that changes decisions."""
    return bool(energies[0] > energies[1] * 10 ** (MAX_LOW_DB / 10))


def hold_different_sounds(samples: np.ndarray, sample_rate: float) -> bool:
    """Return True if the two loudest channels of ``samples`` (samples, channels) hold different sounds.

    Two microphones that hear one person rise and fall together, in whatever room; two people do not.
    """
    length = max(1, round(LEVEL_FRAME_S * sample_rate))
    frames = samples[: len(samples) // length * length].reshape(-1, length, samples.shape[1])
    if len(frames) < 10 or samples.shape[1] < 2:
        return False
    levels_db = 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-12)  # (frames, channels)
    loudest = np.argsort(levels_db.max(axis=0))[-2:]
    levels_db = np.maximum(levels_db[:, loudest], levels_db.max() - LEVEL_RANGE_DB)
    first, second = (levels_db - levels_db.mean(axis=0)).T
    spread = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return bool(spread > 0 and first @ second < SAME_SOUND * spread)


def unreadable_reason(path: str | Path, error: Exception) -> str:
    """Return why ``path`` cannot be read: its actual content if it is recognised, else libsndfile's message."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        return "a link to a file that does not exist"
    try:
        source = _openable(path)
        with source if isinstance(source, io.BytesIO) else path.open("rb") as file:
            head = file.read(FOREIGN_HEAD_BYTES)
    except OSError as cause:
        return str(cause.strerror or cause)
    if known := foreign_content(head):
        return known
    reason = str(getattr(error, "error_string", "") or "no audio").strip(" .")
    return "unknown format" if reason.startswith("File does not exist") else reason  # libsndfile, of a broken MP3


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Resample ``samples`` (samples,) from one rate to another (Hz)."""
    return samples if from_rate == to_rate else soxr.resample(samples, from_rate, to_rate)


def is_silent(path: str | Path) -> bool:
    """Return True if every sample of the file is zero."""
    with open_audio(path, ForwardSoundFile) as audio:
        return not any(block.any() for block in audio_blocks(audio))


def repeat_to(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Repeat ``samples`` (samples,) up to ``num_samples``; longer input is returned unchanged.

    Repeating preserves the mean and variance of the features; zeros would pull them towards silence.
    """
    missing = num_samples - samples.size
    return np.pad(samples, (0, missing), mode="wrap") if missing > 0 else samples
