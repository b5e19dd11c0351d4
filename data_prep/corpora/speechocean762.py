"""speechocean762: read English by native Mandarin speakers, half of them children.

Corpus card: 250 speakers (125 train, 125 test), 5,000 utterances (20 per speaker), about 6 hours, 16 kHz mono, recorded
with phones, one session per speaker, with gender and age. Free for commercial and non-commercial use.
https://www.openslr.org/101 (Zhang et al., Interspeech 2021, arXiv 2104.01378).

Folder shape: a Kaldi data folder, ``train/`` and optionally ``test/``, each with ``wav.scp``, ``utt2spk``,
``spk2gender`` and ``spk2age``; ``wav.scp`` names files such as ``WAVE/SPEAKER0001/000010011.WAV`` below the data
folder. If ``test/`` exists, its speakers are the test part, with all pairs of its utterances as trials.
"""

from pathlib import Path

from data_prep.corpus import Corpus, Utterance, need_folder, read_lines
from voice_biometrics.common.errors import InputError


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the utterances of the Kaldi folders ``train/`` and, if present, ``test/``.

    Raises InputError for a missing or malformed table, or a table that names a missing file.
    """
    need_folder(data_folder, "speechocean762 with train/wav.scp")
    if trial_list:
        raise InputError(f"trial_list {trial_list}: speechocean762 has no list; all pairs of its test half are used")
    test = _read_part(data_folder, "test") if (data_folder / "test").is_dir() else []
    return Corpus(data_folder, _read_part(data_folder, "train"), test)


def _read_part(data_folder: Path, part: str) -> list[Utterance]:
    """Return the utterances of one half, in the order of ``wav.scp``."""
    folder = data_folder / part
    speaker_of = _read_table(folder / "utt2spk")
    gender_of, age_of = _read_table(folder / "spk2gender"), _read_table(folder / "spk2age")
    utterances = []
    for utt_id, path in _read_table(folder / "wav.scp").items():
        spk_id = speaker_of.get(utt_id)
        if spk_id is None:
            raise InputError(f"{folder / 'utt2spk'}: no speaker for utterance {utt_id} of wav.scp; add its line")
        if not (data_folder / path).is_file():
            raise InputError(f"{folder / 'wav.scp'}: {path} of utterance {utt_id} not found in {data_folder}")
        if Path(path).is_absolute():  # as Kaldi's own scripts write
            if not Path(path).is_relative_to(data_folder.absolute()):
                raise InputError(f"{folder / 'wav.scp'}: {path} of utterance {utt_id} is not below {data_folder}")
            path = Path(path).relative_to(data_folder.absolute()).as_posix()
        metadata = {"gender": gender_of.get(spk_id, ""), "age": age_of.get(spk_id, "")}
        utterances.append(Utterance(utt_id, spk_id, path, metadata))
    return utterances


def _read_table(path: Path) -> dict[str, str]:
    """Read a Kaldi table: lines of a key, white space and a value."""
    table = {}
    for place, line in read_lines(path):
        key, *value = line.split(maxsplit=1)
        if not value or key in table:
            fault = f"{key} a second time" if value else "a key without value"
            raise InputError(f"{place}: expected 'key value', found {fault}")
        table[key] = value[0].strip()
    return table
