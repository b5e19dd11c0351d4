"""VoxCeleb1 and VoxCeleb2: interviews of celebrities, cut from videos.

Corpus card: VoxCeleb1 has 1,251 speakers and 153,516 utterances (351 hours), VoxCeleb2-dev 5,994 speakers and 1,092,009
utterances (2,360 hours), 16 kHz mono; metadata and lists CC BY 4.0, the recordings belong to their owners.
https://www.robots.ox.ac.uk/~vgg/data/voxceleb (Nagrani et al., Interspeech 2017; Chung et al., Interspeech 2018).

Folder shape, as released: ``wav/<speaker>/<video>/<number>.wav`` (VoxCeleb1, development and test parts together, or
VoxCeleb2 converted), with ``vox1_meta.csv`` (gender, nationality) and the trial list beside ``wav/``. VoxCeleb2 is
released as ``.m4a`` in ``aac/`` or ``dev/aac/``: convert it first; the error says how. VoxCeleb1 with VoxCeleb2 is
``--corpus voxceleb,voxceleb --data_folder VOX1,VOX2``.

Trial lists: with ``veri_test2.txt`` (VoxCeleb1-O, cleaned; the default) and ``veri_test.txt`` their 40 speakers are
excluded from training. ``list_test_all2.txt`` (E) and ``list_test_hard2.txt`` (H) are drawn from the
1,251 speakers of VoxCeleb1, so no VoxCeleb1 speaker is used for training with
them: they are for models trained on VoxCeleb2.
"""

from pathlib import Path

import pandas as pd

from data_prep.corpus import Corpus, need_folder, utterances_by_speaker_folder
from voice_biometrics.common.audio_files import without_suffix
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import read_trials

DEFAULT_LIST = "veri_test2.txt"
LISTS_OF_ALL_SPEAKERS = ("list_test_all", "list_test_hard")  # E and H, cleaned (2) or not
AUDIO_FOLDERS = ("wav", "aac", "dev/wav", "dev/aac")


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the utterances; speakers of the trial list are excluded from the training part.

    A folder with only VoxCeleb2 needs no trial list; a list that names no file of this folder is an error.
    Raises InputError for a missing folder or list, and for training on VoxCeleb1 with the lists E or H.
    """
    need_folder(data_folder, "VoxCeleb as released, with wav/<speaker>/<video>/<number>.wav")
    folder = next((data_folder / name for name in AUDIO_FOLDERS if (data_folder / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{data_folder}: expected one of {', '.join(AUDIO_FOLDERS)}; check --data_folder")
    utterances = utterances_by_speaker_folder(data_folder, folder, **_read_metadata(data_folder))
    if not any(_is_voxceleb1(utterance.spk_id) for utterance in utterances):
        return Corpus(data_folder, utterances)
    list_file = _find_list(data_folder, trial_list or DEFAULT_LIST)
    trials = read_trials(list_file)
    test_ids = {without_suffix(path) for path in pd.concat([trials["enrol_id"], trials["test_id"]]).unique()}
    test = [utterance for utterance in utterances if utterance.utt_id in test_ids]
    return _split(data_folder, utterances, test, list_file)


def _split(data_folder: Path, utterances: list, test: list, list_file: Path) -> Corpus:
    """Exclude the test speakers, or for E and H all of VoxCeleb1, from the training part."""
    test_speakers = {utterance.spk_id for utterance in test}
    if not list_file.name.startswith(LISTS_OF_ALL_SPEAKERS):
        train = [utterance for utterance in utterances if utterance.spk_id not in test_speakers]
        return Corpus(data_folder, train, test, list_file)
    train = [utterance for utterance in utterances if not _is_voxceleb1(utterance.spk_id)]
    hint = (
        f"{list_file.name} is drawn from all speakers of VoxCeleb1, so a model trained on VoxCeleb1 has seen them and "
        f"its EER would mean nothing: use {DEFAULT_LIST}, or train on VoxCeleb2 "
        "(--corpus voxceleb,voxceleb --data_folder VOX1,VOX2)"
    )
    return Corpus(data_folder, train, test, list_file, hint)


def _is_voxceleb1(spk_id: str) -> bool:
    """Return True for VoxCeleb1 (id10001 to id11251), False for VoxCeleb2 (id00012 to id09272)."""
    return spk_id.startswith("id1")


def _find_list(data_folder: Path, trial_list: str) -> Path:
    """Return the path of the trial list, relative to the corpus or to the current folder."""
    for place in (data_folder / trial_list, Path(trial_list)):
        if place.is_file():
            return place
    raise InputError(
        f"{data_folder / trial_list}: trial list not found; download it from the VoxCeleb page to the folder "
        "that contains wav/, or give another with --trial_list"
    )


def _read_metadata(data_folder: Path) -> dict[str, dict[str, str]]:
    """Read gender and nationality from ``vox1_meta.csv`` (tab-separated), if present."""
    path = data_folder / "vox1_meta.csv"
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).rename(columns=str.strip)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a tab-separated table in UTF-8: {str(error).strip()}") from error
    missing = {"VoxCeleb1 ID", "Gender", "Nationality"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: expected the columns {sorted(missing)}, found {list(table.columns)}")
    table = table.set_index("VoxCeleb1 ID")
    return {"gender": table["Gender"].to_dict(), "nationality": table["Nationality"].to_dict()}
