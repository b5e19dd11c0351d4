"""What decides the manifests of a run."""

import importlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from data_prep.corpus import Corpus
from voice_biometrics.errors import InputError

CORPORA = ("demo_voices", "librispeech", "speaker_folders", "speechocean762", "voxceleb")  # one module each


class Source(NamedTuple):
    """One corpus of a run."""

    label: str  # the corpus' name; numbered where it is named twice: voxceleb, voxceleb_2
    corpus: str
    root: Path

    def find_utterances(self, trial_list: str) -> Corpus:
        """List the files of this corpus by its module's ``find_utterances``."""
        return importlib.import_module(f"data_prep.{self.corpus}").find_utterances(self.root, trial_list)


@dataclass(frozen=True)
class Settings:
    """The hparams keys of the same names, explained in ``hparams/ecapa_small.yaml``."""

    corpus: str
    data_folder: str
    trial_list: str = ""
    valid_speakers: float = 0.2
    test_speakers: float = 0
    max_trials: int = 500_000
    valid_corpus: str = ""
    train_speakers: float = 1.0
    split_seed: int = 1986
    check_audio: bool = False

    @classmethod
    def from_hparams(cls, hparams: dict) -> "Settings":
        """Pick the settings out of the values of a hparams file; InputError for a value of the wrong type."""
        chosen = {item.name: hparams[item.name] for item in fields(cls)}
        for item in fields(cls):
            value, expected = chosen[item.name], (int, float) if item.type is float else item.type
            if not isinstance(value, expected) or isinstance(value, bool) != (item.type is bool):
                raise InputError(f"hparams key {item.name}: expected {item.type.__name__}, found {value!r}")
        return cls(**chosen)

    def sources(self) -> list[Source]:
        """Return the corpora; ``corpus`` and ``data_folder`` are lists apart by commas.

        Raises InputError for an unknown corpus, or for a different number of corpora and folders.
        """
        names, folders = _list_of(self.corpus), _list_of(self.data_folder)
        unknown = [name for name in names if name not in CORPORA]
        if unknown or not names:
            found = unknown[0] if unknown else self.corpus
            raise InputError(f"corpus {found!r}: expected one or more, apart by commas, of {', '.join(CORPORA)}")
        if len(names) != len(folders):
            raise InputError(f"{len(names)} corpora, {len(folders)} data folders: name as many folders as corpora")
        counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
        labels = [name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True)]
        if self.valid_corpus and self.valid_corpus not in labels:
            raise InputError(f"valid_corpus {self.valid_corpus!r}: expected one of the corpora: {', '.join(labels)}")
        return [Source(*source) for source in zip(labels, names, map(Path, folders), strict=True)]

    def replacements(self) -> dict[str, str]:
        """Return the folder that ``$data_root``, or ``$data_root.<label>`` with joined corpora, stands for."""
        sources = self.sources()
        return {root_variable(source.label, len(sources) > 1): str(source.root) for source in sources}

    def portable(self) -> dict:
        """Return the settings without the folders: a corpus that was moved need not be prepared again."""
        return {key: value for key, value in asdict(self).items() if key != "data_folder"}


def root_variable(label: str, joined: bool) -> str:
    """Return the name that stands for a corpus' folder in the manifests."""
    return f"data_root.{label}" if joined else "data_root"


def _list_of(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
