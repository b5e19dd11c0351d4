"""LibriSpeech: read English audiobooks.

Corpus card: 2,484 speakers, 982 hours, 16 kHz mono FLAC, CC BY 4.0. https://www.openslr.org/12 (Panayotov et al.,
ICASSP 2015). Training parts ``train-clean-100`` (251 speakers), ``train-clean-360`` and ``train-other-500``; test part
``test-clean`` (40 speakers).

Folder shape, as released: ``<part>/<speaker>/<chapter>/<utterance>.flac`` with ``SPEAKERS.TXT`` beside the parts
(other audio formats work as well). The parts ``train-*`` are used for training; ``test-clean``, if present, is the
test part with all pairs of its utterances as trials; other parts are ignored.
"""

from pathlib import Path

from data_prep.corpus import Corpus, Utterance, need_folder, read_lines, utterances_by_speaker_folder
from voice_biometrics.common.errors import InputError


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the utterances of the parts that exist, with the speakers' gender.

    Raises InputError without a ``train-*`` part, or for a speaker missing from ``SPEAKERS.TXT``.
    """
    need_folder(data_folder, "LibriSpeech with train-clean-100 or another train-* part")
    if trial_list:
        raise InputError(f"trial_list {trial_list}: LibriSpeech has no list; all pairs of test-clean are used")
    parts = sorted(part for part in data_folder.glob("train-*") if part.is_dir())
    if not parts:
        raise InputError(f"{data_folder}: expected a folder such as train-clean-100, found none; check --data_folder")
    gender_of = _read_genders(data_folder / "SPEAKERS.TXT")
    train = [utterance for part in parts for utterance in _read_part(data_folder, part, gender_of)]
    test_part = data_folder / "test-clean"
    test = _read_part(data_folder, test_part, gender_of) if test_part.is_dir() else []
    return Corpus(data_folder, train, test)


def _read_part(data_folder: Path, part: Path, gender_of: dict[str, str]) -> list[Utterance]:
    """Return the utterances of one part; the file name is the ID, as in the released transcripts."""
    found = utterances_by_speaker_folder(data_folder, part, gender=gender_of)
    for utterance in found:
        if utterance.spk_id not in gender_of:
            raise InputError(f"{utterance.path}: speaker {utterance.spk_id} is not in SPEAKERS.TXT; check the file")
    return [utterance._replace(utt_id=utterance.utt_id.rpartition("/")[2]) for utterance in found]


def _read_genders(path: Path) -> dict[str, str]:
    """Read the gender (m or f) of each reader from ``SPEAKERS.TXT``: lines ``ID | SEX | ...``."""
    genders = {}
    for place, line in read_lines(path):
        fields = [field.strip() for field in line.split("|")]
        if line.startswith(";"):
            continue
        if len(fields) < 2 or fields[1] not in ("F", "M"):
            raise InputError(f"{place}: expected 'ID | F or M | ...', found {line[:60]!r}")
        genders[fields[0]] = fields[1].lower()
    return genders
