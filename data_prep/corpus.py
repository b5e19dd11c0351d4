"""Interface of the corpus modules: ``find_utterances(data_folder, trial_list) -> Corpus``.

A corpus module lists files and reads metadata, never audio; ``data_prep.prepare`` does everything else for all
corpora: headers, splits, trials, checks and writing.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from voice_biometrics.common.audio_files import list_audio, without_suffix
from voice_biometrics.common.errors import InputError

MAX_SKIPPED = 0.01  # fraction of the training files that may be unusable


class Utterance(NamedTuple):
    """An audio file of one speaker; its header is read later."""

    utt_id: str  # unique in the corpus
    spk_id: str
    path: str  # relative to the corpus root, with forward slashes
    metadata: Mapping[str, str] = {}  # further manifest columns: gender, age, ...


@dataclass
class Corpus:
    """The utterances of one corpus."""

    root: Path  # $data_root in the manifests
    train: list[Utterance]
    test: list[Utterance] = field(default_factory=list)
    trial_list: Path | None = None  # None: all pairs of test utterances
    hint: str = ""  # added to the error if no training utterance is left: the reason and the way out
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (file, reason), for skipped.csv


def need_folder(folder: Path, expected: str) -> Path:
    """Return ``folder``; raise InputError, with the ``expected`` content, if it is not a folder."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: expected a folder ({expected}), found {found}; check --data_folder")
    return folder


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``<path>, line <number>`` and the text of each line that is not blank; InputError for no text."""
    if not path.is_file():
        raise InputError(f"{path}: missing; copy it there from the released archive, or check --data_folder")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found other bytes ({error}); convert it") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def utterances_by_speaker_folder(root: Path, folder: Path, **metadata_of: Mapping[str, str]) -> list[Utterance]:
    """List ``<folder>/<speaker>/**/<utterance>`` below ``root``; IDs are the paths in ``folder`` without suffix.

    Keyword arguments are metadata columns: mappings from speaker to value ("" if missing). Raises InputError for a file
    outside a speaker's folder.
    """
    base = "" if folder == root else folder.relative_to(root).as_posix() + "/"
    utterances = []
    metadata_by_speaker: dict[str, dict[str, str]] = {}  # one object for all utterances of a speaker
    for path in list_audio(folder):
        spk_id, _, rest = path.partition("/")
        if not rest:
            raise InputError(
                f"{folder / path}: expected <speaker>/<utterance> below {folder}, found a file outside a "
                "speaker's folder; move it into one"
            )
        if spk_id not in metadata_by_speaker:
            metadata_by_speaker[spk_id] = {column: values.get(spk_id, "") for column, values in metadata_of.items()}
        utterances.append(Utterance(without_suffix(path), sys.intern(spk_id), base + path, metadata_by_speaker[spk_id]))
    return utterances
