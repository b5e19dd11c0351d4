"""What each corpus module returns: which files are speech, who speaks, and which are for testing.

A corpus module has one public function, ``find_utterances(data_folder, trial_list) -> Corpus``. It lists files and
reads metadata, never audio; ``data_prep.prepare`` does the rest for all of them alike: headers, splits, trials,
checks and writing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from voice_biometrics.common.audio_files import list_audio, without_suffix
from voice_biometrics.common.errors import InputError


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
