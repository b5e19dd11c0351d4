"""Any folder of speech with one folder per speaker; a test part and a trial list are optional.

Folder shapes, recognised by name:

- ``<data_folder>/<speaker>/**/<utterance>.<ext>``: no test part; held-out speakers make the trials;
- ``<data_folder>/<*train>/<speaker>/...`` and optionally ``<data_folder>/<*test>/<speaker>/...``: a training and a test
  part, for instance ``voxceleb_train`` and ``voxceleb_test``.

The trials of the test part are ``target.csv`` or ``trials.csv`` in ``data_folder`` or in the test folder (or the file
that ``trial_list`` names): a header line, then path, path, 0/1 with paths relative to the test folder, or any
other format of ``voice_biometrics.common.trial_lists``. Without a list, the trials are all pairs of test utterances.
"""

import os
from pathlib import Path

from data_prep.corpus import Corpus, Utterance, need_folder, utterances_by_speaker_folder
from voice_biometrics.common.errors import InputError

TRIAL_FILES = ("target.csv", "trials.csv")


def find_utterances(data_folder: Path, trial_list: str) -> Corpus:
    """List the utterances of speaker folders (shapes: see the module docstring).

    Raises InputError for a missing folder, files outside speaker folders, or an ambiguous or missing part.
    """
    need_folder(data_folder, "one folder per speaker, or a train and a test folder of these")
    train_folder, test_folder = _part(data_folder, "train"), _part(data_folder, "test")
    if train_folder is None and test_folder is not None:
        raise InputError(f"{data_folder}: found {test_folder.name} but no folder whose name ends in 'train'; add it")
    train = utterances_by_speaker_folder(data_folder, train_folder or data_folder)
    _check_depth(train_folder or data_folder, train)
    if test_folder is None:
        if trial_list:
            raise InputError(f"trial_list {trial_list}: {data_folder} has no test folder (a name that ends in 'test')")
        return Corpus(data_folder, train)
    test = utterances_by_speaker_folder(data_folder, test_folder)
    return Corpus(data_folder, train, test, _trial_file(data_folder, test_folder, trial_list))


def _part(data_folder: Path, ending: str) -> Path | None:
    """Return the folder named ``ending`` or ``..._<ending>``; None without one."""
    parts = [entry for entry in sorted(data_folder.iterdir()) if entry.is_dir() and _names_part(entry.name, ending)]
    if len(parts) > 1:
        names = ", ".join(part.name for part in parts)
        raise InputError(f"{data_folder}: expected one '{ending}' folder, found {names}; keep one")
    return parts[0] if parts else None


def _names_part(name: str, ending: str) -> bool:
    """Return True for ``train``, ``voxceleb_train`` and ``my-train``, False for a speaker named Strain."""
    return name.lower() == ending or name.lower().endswith((f"_{ending}", f"-{ending}"))


def _trial_file(data_folder: Path, test_folder: Path, trial_list: str) -> Path | None:
    """Return the path of ``trial_list``, or of the default names; None without one."""
    names = (trial_list,) if trial_list else TRIAL_FILES
    for name in names:
        for place in (data_folder / name, test_folder / name):  # joining an absolute path gives that path
            if place.is_file():
                return place
    if trial_list:
        raise InputError(f"trial_list {trial_list}: not found in {data_folder} or its {test_folder.name}")
    return None


def _check_depth(folder: Path, train: list[Utterance]) -> None:
    """Raise InputError if all files are below one folder that contains the speaker folders."""
    utt_ids = [utterance.utt_id for utterance in train]
    common = os.path.commonprefix([min(utt_ids), max(utt_ids)]).count("/")
    depth = min(common, min(utt_id.count("/") for utt_id in utt_ids) - 1)
    if depth:
        inner = utt_ids[0].split("/")[:depth]
        place = folder.joinpath(*inner)
        raise InputError(f"{folder}: found one speaker, {inner[0]}; expected several: use --data_folder {place}")
