"""A run folder: its modules as they were trained, wherever it is now, and its held-out speakers."""

import re
import shutil

import pandas as pd
import pytest
import torch

from tests.conftest import write_speakers
from tests.run_folders import TINY, write_run_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.trained_run import TrainedRun


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_speakers(tmp_path_factory.mktemp("corpus"), num_speakers=5, num_utterances=3, duration_s=0.8)


@pytest.fixture
def folder(corpus, tmp_path):
    return write_run_folder(tmp_path / "run", corpus, num_held_out=2)


def arguments(folder, corpus, *more):
    return [TINY, "--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder), *more]


def test_weights_and_settings_are_loaded_and_nothing_in_the_folder_changes(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run = TrainedRun(folder)
    saved = torch.load(next(folder.glob("save/CKPT*/embedding_model.ckpt")), weights_only=True)
    loaded = run.modules["embedding_model"].state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items()) and len(saved) == len(loaded)
    assert (run.sample_rate, run.dims) == (16000, 16) and not run.modules["embedding_model"].training
    assert run.num_head_parameters == 3 * 16
    assert run.held_out().is_held_out and run.trial_set().name == "valid"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_and_a_corpus_that_were_moved_are_found(folder, corpus, tmp_path):
    expected = TrainedRun(folder).fingerprint()
    shutil.move(folder, tmp_path / "elsewhere")
    shutil.copytree(corpus, tmp_path / "voices")
    given = [str(tmp_path / "elsewhere"), "--data_folder", str(tmp_path / "voices"), "--as_norm_top", "2"]
    run = TrainedRun.from_command_line(given, "")
    held_out = run.held_out()
    assert run.fingerprint() == expected and run.scoring.as_norm_top == 2
    assert held_out.manifest["wav"].str.startswith(str(tmp_path / "voices")).all()
    assert held_out.trials["target"].sum() == 2 * 3


def test_a_run_from_before_the_packages_and_the_renamed_keys_is_read(folder, corpus):
    """``hyperparams.yaml`` names classes where they were, and keys as they were called."""
    new, path = TrainedRun(folder), folder / "hyperparams.yaml"
    text = path.read_text()
    places = {"experiment.checkpoints.WholeCheckpointer": "checkpoints.WholeCheckpointer"}
    places["augmentation.augment.Augmentation"] = "augmentation.Augmentation"
    for now, then in places.items():
        assert f"voice_biometrics.{now}" in text
        text = text.replace(f"voice_biometrics.{now}", f"voice_biometrics.{then}")
    for now, then in {
        "n_mels": "num_features",
        "sentence_len": "crop_duration_s",
        "lr_annealing": "lr_scheduler",
    }.items():
        text, found = re.subn(f"^{now}:", f"{then}:", text, flags=re.MULTILINE)
        assert found == 1
    path.write_text(text)
    old = TrainedRun.from_command_line(arguments(folder, corpus), "")
    assert old.fingerprint() == TrainedRun(folder).fingerprint() == new.fingerprint()
    assert old.settings["n_mels"] == 80 and old.held_out().trials.equals(new.held_out().trials)


def test_a_run_from_before_keys_existed_is_read_with_their_defaults_which_may_be_set(folder):
    path, newer = folder / "hyperparams.yaml", ("train_utterances", "channel", "segment_s", "num_workers")
    expected = TrainedRun(folder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.partition(":")[0] not in newer))
    old = TrainedRun.from_command_line([str(folder), "--segment_s", "2.5"], "")
    assert old.settings == expected.settings | {"segment_s": 2.5}
    assert old.hparams == expected.hparams and old.fingerprint() == expected.fingerprint()


def test_values_change_the_fingerprint_and_comments_do_not(folder):
    before = TrainedRun(folder).fingerprint()
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(text.replace("win_length: 25", "win_length: 25.0   # milliseconds"))
    assert TrainedRun(folder).fingerprint() == before
    path.write_text(text.replace("win_length: 25", "win_length: 24"))
    assert TrainedRun(folder).fingerprint() != before


def test_the_best_checkpoint_is_loaded_and_the_newest_on_request(folder, corpus):
    best = TrainedRun(folder)
    later = write_run_folder(folder.parent / "later", corpus, "--seed", "2", num_held_out=2, epoch=2)
    newer = shutil.copytree(next(later.glob("save/CKPT*")), folder / "save" / "CKPT+2099-01-01+00-00-00+00")
    meta = (newer / "CKPT.yaml").read_text()
    (newer / "CKPT.yaml").write_text(meta.replace("EER: 0.1", "EER: 0.2").replace("unixtime: ", "unixtime: 9"))
    assert TrainedRun(folder).fingerprint() == best.fingerprint()
    assert TrainedRun(folder).held_out_chose_it
    newest = TrainedRun(folder, newest=True)
    assert newest.fingerprint() == TrainedRun(later).fingerprint() != best.fingerprint()
    assert not newest.held_out_chose_it


def test_a_held_out_speaker_that_was_trained_on_is_refused(folder):
    path = folder / "manifests" / "train.csv"
    heard = pd.read_csv(folder / "manifests" / "valid.csv", dtype=str)["spk_id"].iloc[0]
    table = pd.read_csv(path, dtype=str)
    table.loc[0, "spk_id"] = heard
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"valid.csv: speaker {heard} was trained on"):
        TrainedRun(folder).held_out()


def test_a_folder_without_a_trained_run_and_other_arguments_than_those_of_the_training_are_refused(
    folder, corpus, tmp_path
):
    with pytest.raises(InputError, match="another embedding_model"):
        TrainedRun.from_command_line(arguments(folder, corpus, "--embedding_dim", "8"), "")
    with pytest.raises(InputError, match="another compute_features"):
        TrainedRun.from_command_line(arguments(folder, corpus, "--n_mels", "40"), "")
    with pytest.raises(InputError, match="expected a run folder"):
        TrainedRun(tmp_path)
    for checkpoint in folder.glob("save/CKPT*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(InputError, match="no checkpoint"):
        TrainedRun(folder)
