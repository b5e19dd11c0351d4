"""Which runs may say what the scores of another one mean, and how a run is made again."""

import re
import shutil

import pytest

from tests.conftest import write_speakers
from tests.run_folders import write_run_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export.calibration import check_calibration_runs, held_out_more_than_once
from voice_biometrics.export.model_card import training_command


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Return what writes a run folder, by its name, and reads it."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = write_speakers(folder / "corpus", num_speakers=5, num_utterances=2, duration_s=0.6)

    def write(name: str, *more: str, num_held_out: int = 2, **kwargs) -> TrainedRun:
        return TrainedRun(write_run_folder(folder / name, corpus, *more, num_held_out=num_held_out, **kwargs))

    return write


@pytest.fixture(scope="module")
def everybody(write):
    return write("everybody", num_held_out=0)


@pytest.fixture(scope="module")
def fold(write):
    return write("fold", "--split_seed", "1", "--seed", "4")


def test_runs_that_held_out_others_are_taken(everybody, fold, write):
    other = write("other", "--split_seed", "2", num_held_out=3)
    check_calibration_runs(everybody, [fold, other])
    held_out = [set(run.held_out().manifest["spk_id"]) for run in (fold, other)]
    assert held_out_more_than_once([fold, other]) == len(held_out[0] & held_out[1])


@pytest.mark.parametrize(
    "changed, told",
    [
        (("--margin_rad", "0.3"), r"another margin_rad \(0.3\), expected that of .*everybody \(0.2\)"),
        (("--augment_noise", "0.5"), "another augment_noise"),
        (("--embedding_dim", "8"), "another embedding_model"),
    ],
)
def test_a_run_that_was_trained_otherwise_is_refused(everybody, write, changed, told, tmp_path_factory):
    other = write(tmp_path_factory.mktemp("other").name, *changed)
    with pytest.raises(InputError, match=told):
        check_calibration_runs(everybody, [other])


def test_another_loss_is_refused(everybody, fold, tmp_path):
    hparams = shutil.copytree(fold.folder, tmp_path / "copy") / "hyperparams.yaml"
    hparams.write_text(hparams.read_text().replace("AdditiveAngularMargin", "AngularMargin"))
    with pytest.raises(InputError, match="another compute_cost, expected"):
        check_calibration_runs(everybody, [TrainedRun(hparams.parent)])


def test_scoring_and_number_of_trials_may_differ(everybody, write):
    check_calibration_runs(everybody, [write("scored", "--as_norm_top", "5", "--max_trials", "4")])


def test_the_same_run_twice_is_refused(everybody, fold, tmp_path):
    copy = TrainedRun(shutil.copytree(fold.folder, tmp_path / "copy"))
    with pytest.raises(InputError, match="copy: the same network as that of .*fold; name it once"):
        check_calibration_runs(everybody, [fold, copy])


def test_a_run_that_was_stopped_is_refused(everybody, fold, write):
    stopped = write("stopped", epoch=1)
    with pytest.raises(InputError, match="was stopped after epoch 1 of 2"):
        check_calibration_runs(everybody, [stopped])
    check_calibration_runs(stopped, [])  # its held-out speakers chose the epoch
    with pytest.raises(InputError, match="was stopped within its first epoch of 2"):
        check_calibration_runs(write("begun", num_held_out=0, epoch=None), [fold])


def test_a_run_that_held_out_nobody_calibrates_nothing(everybody, write):
    with pytest.raises(InputError, match="no speakers were held out"):
        check_calibration_runs(everybody, [write("nobody", "--seed", "7", num_held_out=0)])


def test_the_command_says_what_differs_from_the_hparams_file_and_no_folder_of_this_machine(write, tmp_path):
    other = "--augment_noise 0.5 --noise_folder /somebody/musan --speeds [0.9,1.0]"
    run = write("command", "--name", "ecapa_small", *other.split())
    command = training_command(run, "RUN")
    assert command.startswith(
        "python train.py hparams/ecapa_small.yaml --corpus speaker_folders --data_folder /path/to/"
    )
    for said in (
        "--valid_speakers 2 ",
        "--noise_folder /path/to/musan",
        '--speeds "[0.9, 1.0]"',
        "--output_folder RUN",
    ):
        assert said in command, said
    assert "--lr " not in command and str(tmp_path.parent) not in command
    assert not re.search("--(name|num_speakers|save_folder|tensorboard) ", command)
