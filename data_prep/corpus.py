"""What each corpus module returns: which files are speech, who speaks, and which are for testing.

A corpus module has one public function, ``find_utterances(data_folder, trial_list) -> Corpus``. It lists files and
reads metadata, never audio; ``data_prep.prepare`` does the rest for all of them alike: headers, splits, trials,
checks and writing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from voice_biometrics.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # what libsndfile reads
FOREIGN_SUFFIXES = (".m4a", ".aac", ".mp4", ".webm", ".wma", ".sph", ".amr")  # speech, but to be converted first


class Utterance(NamedTuple):
    """One file of one speaker, before its header is read."""

    utt_id: str  # unique in its corpus
    spk_id: str
    path: str  # below the corpus root, with forward slashes
    metadata: Mapping[str, str] = {}  # further manifest columns: gender, age, ...


@dataclass
class Corpus:
    """The utterances of one corpus."""

    root: Path  # what $data_root stands for in the manifests
    train: list[Utterance]
    test: list[Utterance] = field(default_factory=list)
    trial_list: Path | None = None  # None: all pairs of the test utterances
    hint: str = ""  # why nothing is left to train on, if so, and what to do


def need_folder(folder: Path, expected: str) -> Path:
    """Return ``folder``; raise InputError, saying what was ``expected`` in it, when it is not one."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: expected a folder ({expected}), found {found}; check --data_folder")
    return folder


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


def utterances_by_speaker_folder(root: Path, folder: Path, **metadata_of: Mapping[str, str]) -> list[Utterance]:
    """List ``<folder>/<speaker>/**/<utterance>`` below ``root``; IDs are the paths in ``folder`` less their suffix.

    Each further argument is a metadata column: a mapping from speaker to value ("" where it has none).
    Raises InputError when a file does not lie in a speaker's folder.
    """
    base = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    utterances = []
    for path in list_audio(folder):
        spk_id, _, rest = path.partition("/")
        if not rest:
            raise InputError(
                f"{folder / path}: expected <speaker>/<utterance> below {folder}, found a file without a speaker's "
                "folder; move it into one"
            )
        metadata = {column: values.get(spk_id, "") for column, values in metadata_of.items()}
        utterances.append(Utterance(without_suffix(path), spk_id, base + path, metadata))
    return utterances
