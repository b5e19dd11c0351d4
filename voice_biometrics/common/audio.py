"""Read audio as mono at a given sample rate, with libsndfile.

Without PyTorch, so that training and inference share the code. A path may name a file within a tar file, as manifests
of shards do (``data_prep.shards``): ``train-000007.tar:1536:48044``, its first byte and its number of bytes.
"""

import functools
import io
import os
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voice_biometrics.common.errors import InputError

ADVICE = "repair or remove the file (--check_audio True skips such training files)"


WAV_FORMATS = ("WAV", "WAVEX")
MAX_HEADER_BYTES = 1 << 16  # the data chunk of a WAV begins within these
TAR_MEMBER = re.compile(r"(.+\.tar):(\d+):(\d+)")
MOST_OPEN_TARS = 256
CANCELLING = 0.1  # channels whose mean has less than this fraction of their RMS (-20 dB) are not averaged
CHANNEL = re.compile(r"(.+)#channel=(\d+)")  # a path in a manifest that names a channel, from 1
LOW_HZ = 40.0  # below any voice
MAX_LOW_DB = -17.0  # 250 recordings of speechocean762: -18.4 or less; with rumble of 0.02 (peak 0.5): -16.3 or more
SAME_SOUND = 0.6  # correlation of the levels of two channels; one person at two random microphones: 0.75 or more
STRONG_LOW = "strong energy below the voice (an offset or rumble): use a high-pass filter or another microphone"
DIFFERENT_SOUNDS = "different sounds on its channels, such as two people: choose one with --channel"
LEVEL_FRAME_S, LEVEL_RANGE_DB = 0.1, 40.0
FOREIGN_CONTENT = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer; fetch the file with: git lfs pull"),
    (re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE), "a web page; download the file again"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "MPEG-4 audio; convert it: ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "WebM or Matroska; convert it: ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"),
    (re.compile(rb"\Z"), "empty: no bytes"),
)


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
        with open_audio(path) as audio:
            file_rate = audio.samplerate
            first = audio.seek(start) if start and audio.seekable() else 0  # telephone codecs are read from the start
            count = (audio.frames if stop is None else stop) - first
            samples = audio.read(count, dtype="float32", always_2d=True)[start - first :]
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


def open_audio(path: str | Path) -> soundfile.SoundFile:
    """Open an audio file; a WAV of unknown length (data size 0) is read to its end.

    Raises soundfile.SoundFileError or OSError.
    """
    source = _openable(path)
    audio = soundfile.SoundFile(source)
    if audio.frames or audio.format not in WAV_FORMATS:
        return audio
    audio.close()
    content = bytearray(source.getvalue() if isinstance(source, io.BytesIO) else Path(path).read_bytes())
    place = content.find(b"data\0\0\0\0", 0, MAX_HEADER_BYTES)
    if place >= 0:
        content[place + 4 : place + 8] = min(len(content) - place - 8, 0xFFFFFFFF).to_bytes(4, "little")
    return soundfile.SoundFile(io.BytesIO(content))


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


def foreign_content(head: bytes) -> str:
    """Return what the first 64 bytes of a file that is not readable audio show it to be; empty if unknown."""
    return next((description for pattern, description in FOREIGN_CONTENT if pattern.match(head)), "")


def unreadable_reason(path: str | Path, error: Exception) -> str:
    """Return why ``path`` cannot be read: its actual content if it is recognised, else libsndfile's message."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        return "a link to a file that does not exist"
    try:
        source = _openable(path)
        with source if isinstance(source, io.BytesIO) else path.open("rb") as file:
            head = file.read(64)
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
    with open_audio(path) as audio:
        return not any(block.any() for block in audio.blocks(blocksize=1 << 20, dtype="float32"))


def repeat_to(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Repeat ``samples`` (samples,) up to ``num_samples``; longer input is returned unchanged.

    Repeating preserves the mean and variance of the features; zeros would pull them towards silence.
    """
    missing = num_samples - samples.size
    return np.pad(samples, (0, missing), mode="wrap") if missing > 0 else samples
