"""A run folder: the modules as they were trained, wherever it is now, and the speakers that it held out."""

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


def test_weights_and_settings_are_those_of_the_run(folder):
    run = TrainedRun(folder)
    saved = torch.load(next(folder.glob("save/CKPT*/embedding_model.ckpt")), weights_only=True)
    loaded = run.modules["embedding_model"].state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.items()) and len(saved) == len(loaded)
    assert (run.sample_rate, run.dims) == (16000, 16) and not run.modules["embedding_model"].training


def test_reading_changes_nothing_in_the_folder(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    TrainedRun(folder).held_out()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_and_a_corpus_that_were_moved_are_found(folder, corpus, tmp_path):
    expected = TrainedRun(folder).fingerprint()
    shutil.move(folder, tmp_path / "elsewhere")
    shutil.copytree(corpus, tmp_path / "voices")
    run = TrainedRun.from_command_line([str(tmp_path / "elsewhere"), "--data_folder", str(tmp_path / "voices")], "")
    manifest, trials = run.held_out().manifest, run.held_out().trials
    assert run.fingerprint() == expected
    assert manifest["wav"].str.startswith(str(tmp_path / "voices")).all() and trials["target"].sum() == 2 * 3


def test_comments_and_order_in_the_hparams_leave_the_fingerprint_and_values_change_it(folder):
    before = TrainedRun(folder).fingerprint()
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    path.write_text(text.replace("win_length: 25", "win_length: 25.0   # milliseconds"))
    assert TrainedRun(folder).fingerprint() == before
    path.write_text(text.replace("win_length: 25", "win_length: 24"))
    assert TrainedRun(folder).fingerprint() != before


def test_the_best_checkpoint_is_read_and_the_newest_when_asked_for(folder, corpus):
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


def test_a_speaker_in_both_parts_is_refused(folder):
    path = folder / "manifests" / "train.csv"
    heard = pd.read_csv(folder / "manifests" / "valid.csv", dtype=str)["spk_id"].iloc[0]
    table = pd.read_csv(path, dtype=str)
    table.loc[0, "spk_id"] = heard
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"speaker {heard} was trained on"):
        TrainedRun(folder).held_out()


def test_what_is_no_finished_run_is_told(folder, tmp_path):
    with pytest.raises(InputError, match="expected a run folder"):
        TrainedRun(tmp_path)
    for checkpoint in folder.glob("save/CKPT*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(InputError, match="no checkpoint"):
        TrainedRun(folder)


def test_other_arguments_than_those_of_the_training_are_refused_by_name(folder, corpus):
    given = [TINY, "--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    assert TrainedRun.from_command_line(given, "").fingerprint() == TrainedRun(folder).fingerprint()
    with pytest.raises(InputError, match="another embedding_model"):
        TrainedRun.from_command_line([*given, "--embedding_dim", "8"], "")
    other = TrainedRun(write_run_folder(folder.parent / "other", corpus, "--n_mels", "40", num_held_out=2))
    with pytest.raises(InputError, match="another compute_features.*the same hparams"):
        other.check_same_modules(TrainedRun(folder).nodes, "runs of the same hparams")
