"""What each corpus module returns: which files are speech, who speaks, and which are for testing.

A corpus module has one public function, ``find_utterances(data_folder, trial_list) -> Corpus``. It lists files and reads
metadata, never audio; ``data_prep.prepare`` does the rest for all of them alike: headers, splits, trials, checks, writing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")  # what libsndfile reads, lower case


class Utterance(NamedTuple):
    """One file of one speaker, before its header is read."""

    utt_id: str  # unique in its corpus
    spk_id: str
    path: str  # below the corpus root, with forward slashes
    metadata: Mapping[str, str] = {}  # further manifest columns: gender, age, ...


@dataclass
class Corpus:
    """The utterances of one corpus, sorted by ``utt_id``."""

    root: Path  # what $data_root stands for in the manifests
    train: list[Utterance]
    test: list[Utterance] = field(default_factory=list)
    trial_list: Path | None = None  # None: all pairs of the test utterances
    hint: str = ""  # what to do when nothing is left to train on
