"""Settings of data preparation: everything that determines the manifests of a run."""

import importlib
import math
from dataclasses import MISSING, asdict, dataclass, fields

from data_prep.corpus import Corpus
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import CorpusFolder, corpus_folders, data_roots

CORPORA = ("common_voice", "demo_voices", "librispeech", "speaker_folders", "speechocean762", "voxceleb")  # modules


@dataclass(frozen=True)
class Settings:
    """The hparams keys of the same names, explained in ``hparams/ecapa_small.yaml``.

    The default of a new setting must change no manifest: older manifests are read with it.
    """

    corpus: str
    data_folder: str
    trial_list: str = ""
    valid_speakers: float | str = 0.2  # text: comma-separated, one for each corpus
    test_speakers: float = 0
    max_trials: int = 500_000
    valid_corpus: str = ""
    train_speakers: float = 1.0
    train_utterances: int = 0
    split_seed: int = 1986
    check_audio: bool = False
    channel: int = 0

    def __post_init__(self) -> None:
        for name in ("valid_speakers", "test_speakers", "train_speakers"):
            value = getattr(self, name)
            if not isinstance(value, str) and not math.isfinite(value):
                raise InputError(f"{name} {value}: expected a fraction or a number of speakers")
        for name in ("train_utterances", "split_seed", "channel"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)}: expected 0 or more")

    @classmethod
    def from_hparams(cls, hparams: dict) -> "Settings":
        """Select the settings from hparams; raises InputError for a value of the wrong type."""
        chosen = {item.name: hparams[item.name] for item in fields(cls)}
        for item in fields(cls):
            value, expected = chosen[item.name], item.type | int if item.type in (float, float | str) else item.type
            if not isinstance(value, expected) or isinstance(value, bool) != (item.type is bool):
                name = getattr(item.type, "__name__", "number or text")
                raise InputError(f"hparams key {item.name}: expected {name}, found {value!r}")
        return cls(**chosen)

    def corpora(self) -> dict[str, Corpus]:
        """List the files of each corpus, by label.

        Raises InputError for an unknown corpus, or for a different number of corpora and folders.
        """
        return {
            entry.label: importlib.import_module(f"data_prep.corpora.{entry.corpus}").find_utterances(
                entry.folder, self.trial_list
            )
            for entry in self._folders()
        }

    def valid_amounts(self) -> dict[str, float]:
        """Return the fraction or number of speakers to hold out of each corpus, by label.

        ``valid_speakers`` is one value for ``valid_corpus`` (default: for each corpus), or one value per corpus. Raises
        InputError for text that is not such a list.
        """
        labels = [entry.label for entry in self._folders()]
        if not isinstance(self.valid_speakers, str):
            return {label: self.valid_speakers if self.valid_corpus in ("", label) else 0.0 for label in labels}
        try:
            amounts = [float(item) for item in self.valid_speakers.split(",")]
        except ValueError:
            amounts = []
        if len(amounts) != len(labels) or self.valid_corpus or not all(map(math.isfinite, amounts)):
            raise InputError(
                f"valid_speakers {self.valid_speakers!r}: expected one number, or one for each of {', '.join(labels)} "
                "and no valid_corpus"
            )
        return dict(zip(labels, amounts, strict=True))

    def replacements(self) -> dict[str, str]:
        """Return the folder of each ``$data_root`` or, with joined corpora, ``$data_root.<label>``."""
        self._folders()
        return data_roots(self.corpus, self.data_folder)

    def _folders(self) -> list[CorpusFolder]:
        names = [name.strip() for name in self.corpus.split(",") if name.strip()]
        unknown = [name for name in names if name not in CORPORA]
        if unknown or not names:
            found = unknown[0] if unknown else self.corpus
            raise InputError(f"corpus {found!r}: expected a comma-separated list of {', '.join(CORPORA)}")
        entries = corpus_folders(self.corpus, self.data_folder)
        labels = [entry.label for entry in entries]
        if self.valid_corpus and self.valid_corpus not in labels:
            raise InputError(f"valid_corpus {self.valid_corpus!r}: expected one of the corpora: {', '.join(labels)}")
        return entries

    def portable(self) -> dict:
        """Return the settings without the folders, so that a moved corpus is not prepared again."""
        return {key: value for key, value in asdict(self).items() if key != "data_folder"}


def recorded_settings(record: dict) -> dict:
    """Return the settings in a ``prepared.json``; those that are newer than the file have their defaults."""
    defaults = {item.name: item.default for item in fields(Settings) if item.default is not MISSING}
    return defaults | record.get("settings", {})
