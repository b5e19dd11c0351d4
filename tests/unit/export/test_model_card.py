"""The model card: scoring that the folder does not follow, corpora, the command that reproduces a run."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.settings import CORPORA as KNOWN
from tests.conftest import write_speakers
from tests.run_folders import write_run_folder
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export.model_card import CORPORA, left_out, origin_of, teacher_of, training_command


@pytest.mark.parametrize(
    "asked, named",
    [
        ({"subtract_mean": False, "as_norm_top": 0, "segment_s": 0}, []),
        ({"subtract_mean": True, "as_norm_top": 300}, ["`subtract_mean: True`", "`as_norm_top: 300`"]),
        ({"calibrate_with_durations": True, "p_targets": [1]}, ["`calibrate_with_durations: True`"]),
    ],
)
def test_scoring_that_only_the_evaluation_has_is_named(asked, named):
    assert re.findall("`[^`]*: [^`]*`", left_out(SimpleNamespace(settings=asked))) == named


def test_the_network_that_a_run_started_from_is_named(tmp_path):
    assert origin_of(SimpleNamespace(settings={"pretrained": ""})) == ""
    run = SimpleNamespace(settings={"pretrained": str(tmp_path)})
    assert str(tmp_path) in origin_of(run)
    (tmp_path / "calibration.json").write_text('{"name": "small", "version": "1.5"}')
    assert "small 1.5" in origin_of(run)


def test_every_corpus_has_its_licence():
    assert KNOWN and set(KNOWN) <= CORPORA.keys()


def test_the_command_has_all_keys_that_differ_and_no_folder_of_this_machine(tmp_path):
    corpus = write_speakers(tmp_path / "corpus", num_speakers=5, num_utterances=2, duration_s=0.6)
    other = "--name ecapa_small --augment_noise 0.5 --noise_folder /somebody/musan --speeds [0.9,1.0]"
    run = TrainedRun(write_run_folder(tmp_path / "run", corpus, *other.split(), num_held_out=2))
    command = training_command(run, "RUN")
    start = "python train.py hparams/ecapa_small.yaml --corpus speaker_folders --data_folder /path/to/"
    assert command.startswith(start)
    for given in ("valid_speakers 2", "noise_folder /path/to/musan", 'speeds "[0.9, 1.0]"', "output_folder RUN"):
        assert f"--{given}" in command
    assert "--lr " not in command and str(tmp_path.parent) not in command
    assert "--teacher" not in command
    np.savez(run.manifests / "teacher.npz", teacher=np.array("CAM++"))
    assert "--teacher /path/to/teacher" in training_command(run, "RUN") and teacher_of(run) == "CAM++"
    run.settings["teacher_file"] = str(tmp_path / "shared.npz")
    np.savez(run.settings["teacher_file"], teacher=np.array("another"))
    assert teacher_of(run) == "another"
    assert not re.search("--(name|num_speakers|save_folder|tensorboard) ", command)
