"""Length and rate of audio files, read from their headers by many threads at once."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from voice_biometrics.common.errors import InputError

NUM_THREADS = 16  # reading waits for the disk; libsndfile lets other threads run meanwhile
CHUNK = 256  # files a task
CLAIMED_SIZE = re.compile(r"^data\s*: \d+ \(should be \d+\)$", re.MULTILINE)
STREAMED_SIZE = re.compile(r"^data\s*: (0|4294967295|2147483647)\b", re.MULTILINE)  # written before the end was known


class Header(NamedTuple):
    """What a file's header says; ``fault`` is empty when the file is sound."""

    num_samples: int  # a channel, at the file's own rate
    sample_rate: int  # Hz
    fault: str


def read_headers(paths: Sequence[Path], label: str, decode: bool = False) -> list[Header]:
    """Read the headers of ``paths`` in order, with a progress bar called ``label``.

    A file that is unreadable, empty, truncated or no audio comes back with a ``fault`` instead of raising; with
    ``decode`` all samples are read, so that one which is silent or not finite does too.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    headers: list[Header] = []
    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(total=len(paths), desc=label, unit="file") as bar:
        for chunk in pool.map(lambda chunk: [read_header(path, decode) for path in chunk], chunks):
            headers.extend(chunk)
            bar.update(len(chunk))
    return headers


def read_header(path: Path, decode: bool = False) -> Header:
    """Read one header. FLAC states its length in front, so its last sample is read to know that it is there."""
    try:
        with soundfile.SoundFile(path) as audio:
            if audio.format == "FLAC" and audio.frames:
                audio.seek(audio.frames - 1)
                audio.read(1)
            fault = _fault(audio)
            if decode and not fault:
                audio.seek(0)
                fault = _fault_of_samples(audio)
            return Header(audio.frames, audio.samplerate, fault)
    except (soundfile.SoundFileError, OSError) as error:
        return Header(0, 0, f"unreadable, truncated or not audio ({_reason(error)})")


def _fault(audio: soundfile.SoundFile) -> str:
    """Say what is wrong with an open file: no samples, or fewer than its header claims."""
    if not audio.frames:
        return "empty: no samples"
    if audio.format in ("WAV", "WAVEX") and CLAIMED_SIZE.search(audio.extra_info):
        return "" if STREAMED_SIZE.search(audio.extra_info) else "truncated: shorter than its header says"
    return ""


def _fault_of_samples(audio: soundfile.SoundFile) -> str:
    """Decode an open file to its end and say what is wrong with its samples."""
    loudest, num_samples = 0.0, 0
    for block in audio.blocks(blocksize=1 << 18, dtype="float32", always_2d=True):
        loudest = max(loudest, float(np.abs(block).max(initial=0.0)) if np.isfinite(block).all() else np.inf)
        num_samples += len(block)
    if num_samples != audio.frames:
        return "truncated: shorter than its header says"
    if loudest == np.inf:
        return "samples that are NaN or infinite"
    return "" if loudest else "silent: all samples are zero"


def _reason(error: Exception) -> str:
    """libsndfile's words, without the path that they repeat."""
    return str(getattr(error, "error_string", "") or getattr(error, "strerror", "") or "decoding failed").strip(" .")


AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # what libsndfile reads

FOREIGN_SUFFIXES = (".m4a", ".aac", ".mp4", ".webm", ".wma", ".sph", ".amr")  # speech, but to be converted first


def list_audio(folder: Path) -> list[str]:
    """Return the audio files below ``folder``, relative to it, sorted; InputError when there are none."""
    paths, foreign = [], []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        below = "" if Path(parent) == folder else Path(parent).relative_to(folder).as_posix() + "/"
        for name in files:
            if name.startswith("."):  # macOS leaves ._copies
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in AUDIO_SUFFIXES:
                paths.append(below + name)
            elif suffix in FOREIGN_SUFFIXES:
                foreign.append(below + name)
    if not paths:
        raise InputError(_no_audio(folder, foreign))
    return sorted(paths)


def _no_audio(folder: Path, foreign: list[str]) -> str:
    """Say what was looked for in vain, and how to convert what was found instead."""
    expected = f"{folder}: expected audio ({', '.join(AUDIO_SUFFIXES)}), found none"
    if not foreign:
        return f"{expected}; check --data_folder"
    return (
        f"{expected}, but {len(foreign)} files such as {foreign[0]}; convert them first, for instance: "
        'find . -name "*.m4a" | while read -r f; do ffmpeg -nostdin -i "$f" -ac 1 -ar 16000 "${f%.*}.wav"; done'
    )


def without_suffix(path: str) -> str:
    """Return ``path`` less its last suffix: ``a/b.c.wav`` is ``a/b.c``."""
    return path.rpartition(".")[0] if "." in path.rpartition("/")[2] else path
