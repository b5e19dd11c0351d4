"""List audio files, and read their length and sample rate from their headers, in threads."""

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

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # read by libsndfile
FOREIGN_SUFFIXES = (".m4a", ".aac", ".mp4", ".webm", ".wma", ".sph", ".amr")  # must be converted first
NUM_THREADS = 16  # libsndfile releases the GIL; the threads wait for the disk
CHUNK = 256  # files per task
CLAIMED_SIZE = re.compile(r"^data\s*: \d+ \(should be \d+\)$", re.MULTILINE)
STREAMED_SIZE = re.compile(
    r"^data\s*: (0|4294967295|2147483647)\b", re.MULTILINE
)  # header written before the length was known


class Header(NamedTuple):
    """Length and rate of a file; ``fault`` is empty for a usable file."""

    num_samples: int  # per channel, at the file's own rate
    sample_rate: int  # Hz
    fault: str


def read_headers(paths: Sequence[Path], label: str, decode: bool = False) -> list[Header]:
    """Read the headers of ``paths`` in order, with a progress bar named ``label``.

    An unreadable, empty, truncated or non-audio file gets a ``fault`` instead of raising; with ``decode`` all samples
    are read, so that silent and non-finite files are found too.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    headers: list[Header] = []
    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(total=len(paths), desc=label, unit="file") as bar:
        for chunk in pool.map(lambda chunk: [read_header(path, decode) for path in chunk], chunks):
            headers.extend(chunk)
            bar.update(len(chunk))
    return headers


def read_header(path: Path, decode: bool = False) -> Header:
    """Read one header; for FLAC, which stores its length up front, the last sample is decoded as well."""
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
    """Return the fault of an open file: no samples, or fewer than its header states."""
    if not audio.frames:
        return "empty: no samples"
    if audio.format in ("WAV", "WAVEX") and CLAIMED_SIZE.search(audio.extra_info):
        return "" if STREAMED_SIZE.search(audio.extra_info) else "truncated: shorter than its header says"
    return ""


def _fault_of_samples(audio: soundfile.SoundFile) -> str:
    """Decode an open file and return the fault of its samples."""
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
    """Return libsndfile's message without the path."""
    return str(getattr(error, "error_string", "") or getattr(error, "strerror", "") or "decoding failed").strip(" .")


def list_audio(folder: Path) -> list[str]:
    """Return the audio files below ``folder``, relative to it, sorted; raises InputError without any."""
    paths, foreign = [], []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        below = "" if Path(parent) == folder else Path(parent).relative_to(folder).as_posix() + "/"
        for name in files:
            if name.startswith("."):  # such as the ._ files of macOS
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
    """Return the message for a folder without audio, with the command that converts foreign formats."""
    expected = f"{folder}: expected audio ({', '.join(AUDIO_SUFFIXES)}), found none"
    if not foreign:
        return f"{expected}; check --data_folder"
    return (
        f"{expected}, but {len(foreign)} files such as {foreign[0]}; convert them first, for instance: "
        'find . -name "*.m4a" | while read -r f; do ffmpeg -nostdin -i "$f" -ac 1 -ar 16000 "${f%.*}.wav"; done'
    )


def without_suffix(path: str) -> str:
    """Return ``path`` without its last suffix: ``a/b.c.wav`` becomes ``a/b.c``."""
    return path.rpartition(".")[0] if "." in path.rpartition("/")[2] else path
