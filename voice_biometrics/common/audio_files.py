"""List audio files, and read their length and sample rate from their headers, in threads."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from voice_biometrics.common.audio import (
    DIFFERENT_SOUNDS,
    STRONG_LOW,
    ForwardSoundFile,
    audio_blocks,
    hold_different_sounds,
    is_low_strong,
    low_and_other_energy,
    mix_down,
    open_audio,
    stated_frames,
    unreadable_reason,
)
from voice_biometrics.common.audio_headers import MOST_FRAMES
from voice_biometrics.common.errors import InputError

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # read by libsndfile
FOREIGN_SUFFIXES = (  # must be converted first
    *(".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".awb", ".caf", ".m4a", ".mka", ".mkv"),
    *(".mov", ".mp2", ".mp4", ".oga", ".sph", ".spx", ".w64", ".webm", ".wma", ".wv"),
)
CONVERT = (
    "convert them, for instance: find . {names} | while read -r f; do "
    'ffmpeg -nostdin -i "$f" -ac 1 -ar 16000 "${{f%.*}}.wav"; done'
)
NUM_THREADS = 16  # libsndfile releases the GIL; the threads wait for the disk
CHUNK = 256  # files per task
BLOCK = 64 * CHUNK  # files that tasks are made for at a time
TRUNCATED = "truncated: shorter than its header says"


class Header(NamedTuple):
    """Length and rate of a file; ``fault`` is empty for a usable file, ``remarks`` if there is nothing to report."""

    num_samples: int  # per channel, at the file's own rate
    sample_rate: int  # Hz
    fault: str
    num_channels: int = 1
    remarks: tuple[str, ...] = ()  # of decoded files


def read_headers(
    folder: Path, names: Sequence[str], label: str, decode: bool = False, channel: int = 0
) -> Iterator[Header]:
    """Yield the headers of files, named relative to ``folder``, in order, with a progress bar named ``label``.

    An unreadable, empty, truncated or non-audio file gets a ``fault`` instead of raising; with ``decode`` all samples
    (of one ``channel``, from 1) are read, so that silent and non-finite files are found too.
    """

    def read(start: int) -> list[Header]:
        return [read_header(folder / name, decode, channel) for name in names[start : start + CHUNK]]

    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(total=len(names), desc=label, unit="file") as bar:
        for block in range(0, len(names), BLOCK):
            for headers in pool.map(read, range(block, min(block + BLOCK, len(names)), CHUNK)):
                yield from headers
                bar.update(len(headers))


def read_header(path: Path, decode: bool = False, channel: int = 0) -> Header:
    """Read the header of one file.

    A length that cannot be trusted is checked: the last sample of FLAC and MP3 is decoded, and all samples are counted
    of those without a length.
    """
    try:
        with open_audio(path) as audio:
            frames, fault = audio.frames, _fault(audio)
            if frames > MOST_FRAMES:
                with open_audio(path, ForwardSoundFile) as again:
                    frames = sum(map(len, audio_blocks(again)))
            if channel > audio.channels > 1:
                fault = f"{audio.channels} channels, so there is no channel {channel}"
            remarks: tuple[str, ...] = ()
            if decode and not fault:
                with open_audio(path, ForwardSoundFile) as again:
                    fault, remarks = _listen(again, frames, channel)
            return Header(frames, audio.samplerate, fault, audio.channels, remarks)
    except (soundfile.SoundFileError, OSError) as error:
        return Header(0, 0, f"unreadable or truncated: {unreadable_reason(path, error)}")


def _fault(audio: soundfile.SoundFile) -> str:
    """Return the fault of an open file: no samples, or fewer than its header states."""
    if not audio.frames:
        return "empty: no samples"
    return TRUNCATED if stated_frames(audio) > audio.frames or not _has_end(audio) else ""


def _has_end(audio: soundfile.SoundFile) -> bool:
    """Return False if the last sample of a FLAC or MP3 with a length cannot be decoded."""
    if audio.format not in ("FLAC", "MP3") or audio.frames > MOST_FRAMES:
        return True
    try:
        audio.seek(audio.frames - 1)
        return len(audio.read(1)) == 1
    except soundfile.SoundFileError:
        return False


def _listen(audio: ForwardSoundFile, num_frames: int, channel: int) -> tuple[str, tuple[str, ...]]:
    """Decode an open file; return the fault of its samples, and remarks on them."""
    loudest, num_samples, energies, are_different = 0.0, 0, np.zeros(2), False
    for block in audio_blocks(audio):
        mono = mix_down(block, channel)
        if not np.isfinite(mono).all():
            return "samples that are NaN or infinite", ()
        loudest = max(loudest, float(np.abs(mono).max(initial=0.0)))
        num_samples += len(block)
        energies += low_and_other_energy(mono, audio.samplerate)
        are_different = are_different or (not channel and hold_different_sounds(block, audio.samplerate))
    if num_samples != num_frames:
        return TRUNCATED, ()
    remarks = [DIFFERENT_SOUNDS] * are_different + [STRONG_LOW] * is_low_strong(energies)
    return "" if loudest else "silent: all samples are zero", tuple(remarks)


def list_audio(folder: Path) -> list[str]:
    """Return the audio files below ``folder``, relative to it, sorted.

    Hidden files and folders are skipped, and so are links to folders that are below ``folder`` or contain it: each
    folder counts once. Skipped folders, dangling links and recordings in other formats are logged. Raises InputError
    without any audio.
    """
    paths, foreign, skipped, dangling, seen = [], [], [], [], set()
    root = folder.resolve()
    for parent, folders, files in os.walk(folder, followlinks=True):
        below = "" if Path(parent) == folder else Path(parent).relative_to(folder).as_posix() + "/"
        if (place := Path(parent).resolve()) in seen:  # two links to one folder, or a link from there to itself
            skipped.append(below.rstrip("/"))
            folders.clear()
            continue
        seen.add(place)
        left_out = {name for name in folders if name.startswith(".") or _is_link_inside(Path(parent, name), root)}
        skipped += [below + name for name in sorted(left_out)]
        folders[:] = sorted(set(folders) - left_out)
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):  # such as the ._ files of macOS
                continue
            if suffix in AUDIO_SUFFIXES:
                paths.append(below + name)
            elif suffix in FOREIGN_SUFFIXES:
                foreign.append(below + name)
            elif not os.path.exists(os.path.join(parent, name)):
                dangling.append(below + name)
    if not paths:
        raise InputError(_no_audio(folder, foreign))
    if skipped:
        logger.warning("%s: hidden or linked folders skipped: %s", folder, shortened(skipped))
    if dangling:
        logger.warning("%s: links to files or folders that do not exist: %s", folder, shortened(dangling))
    if foreign:
        logger.warning("%s: %s", folder, _told(foreign))
    return sorted(paths)


def shortened(names: list[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _is_link_inside(folder: Path, root: Path) -> bool:
    """Return True for a link to a folder that is below ``root`` or contains it."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    return target.is_relative_to(root) or root.is_relative_to(target)


def _no_audio(folder: Path, foreign: list[str]) -> str:
    """Return the message for a folder without audio, with the command that converts foreign formats."""
    expected = f"{folder}: expected audio ({', '.join(AUDIO_SUFFIXES)}), found none"
    if not foreign:
        return f"{expected}; check --data_folder"
    return f"{expected}, but {_told(foreign)}"


def _told(foreign: list[str]) -> str:
    """Return the number of recordings in other formats, and the command that converts them."""
    counts = Counter(os.path.splitext(path)[1].lower() for path in foreign)
    kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(counts.items()))
    names = " -o ".join(f'-iname "*{suffix}"' for suffix in sorted(counts))
    return f"{len(foreign)} files in formats that are not read ({kinds}), such as {foreign[0]}; " + CONVERT.format(
        names=names
    )


def without_suffix(path: str) -> str:
    """Return ``path`` without its last suffix: ``a/b.c.wav`` becomes ``a/b.c``."""
    return path.rpartition(".")[0] if "." in path.rpartition("/")[2] else path
