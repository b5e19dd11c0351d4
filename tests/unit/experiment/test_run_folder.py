"""Run folders: one run at a time, the same hparams throughout, a row an epoch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.experiment.run_folder import (
    check_same_hparams,
    only_run_in,
    read_epochs,
    record_epoch,
    write_hparams,
)


def test_a_second_process_in_the_same_folder_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from voice_biometrics.experiment.run_folder import only_run_in\n"
        "with only_run_in(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another run is going on"):
            with only_run_in(tmp_path):
                pass
        other.kill()
        other.wait()
    with only_run_in(tmp_path):  # a killed run holds nothing
        pass


TINY = "tests/hparams/tiny.yaml"
TEXT = "lr: {lr}\nseed: {seed}\nnum_workers: {workers}\n"


def start(folder: Path, **values) -> None:
    text = TEXT.format(**{"lr": 1, "seed": 2, "workers": 0, **values})
    check_same_hparams(text, "", folder)
    (folder / "hyperparams.yaml").write_text(text)


def test_other_hparams_are_refused_once_there_is_a_checkpoint(tmp_path):
    start(tmp_path)
    start(tmp_path, lr=5)  # nothing was trained yet
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    start(tmp_path, lr=5, workers=8)  # more loading processes change no result
    with pytest.raises(InputError, match="another lr, seed;"):
        start(tmp_path, lr=6, seed=3)
    with pytest.raises(InputError, match="older version.*crop_duration_s.*output_folder"):
        (tmp_path / "hyperparams.yaml").write_text("crop_duration_s: 2\n")
        start(tmp_path)
    (tmp_path / "hyperparams.yaml").write_text("")  # killed before it was written
    start(tmp_path)


def test_another_class_with_the_same_arguments_is_refused(tmp_path):
    start(tmp_path, lr="!name:torch.optim.Adam\n  lr: 0.1")
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    start(tmp_path, lr="!name:torch.optim.Adam  # a comment\n  lr: 0.1")
    with pytest.raises(InputError, match="another lr;"):
        start(tmp_path, lr="!name:torch.optim.AdamW\n  lr: 0.1")


def begin(folder: Path, *lines: str) -> None:
    """Write what a run leaves that was begun before the keys in ``lines`` of its record existed."""
    (folder / "save" / "CKPT+1").mkdir(parents=True, exist_ok=True)
    run = read_command_line([TINY, "--seed", "7", "--sample_rate", "8000", "--speeds", "[0.9,", "1.0]"], "")
    write_hparams(run.text, run.overrides, folder)
    record = folder / "hyperparams.yaml"
    text = record.read_text()
    for line in lines:
        text, found = re.subn(f"^{line}.*\n", "", text, flags=re.MULTILINE)
        assert found == 1, line
    record.write_text(text)


def resume(folder: Path, *more: str) -> None:
    run = read_command_line([TINY, "--seed", "7", "--sample_rate", "8000", "--speeds", "[0.9,", "1.0]", *more], "")
    check_same_hparams(run.text, run.overrides, folder)


def test_a_run_that_was_begun_before_a_key_existed_goes_on_with_its_default_only(tmp_path):
    begin(tmp_path, "train_utterances: 0")
    resume(tmp_path)
    resume(tmp_path, "--train_utterances", "0")
    with pytest.raises(InputError, match="another train_utterances;"):
        resume(tmp_path, "--train_utterances", "5")
    with pytest.raises(InputError, match="another margin_rad, compute_cost, train_utterances;"):
        resume(tmp_path, "--train_utterances", "5", "--margin_rad", "0.3")


def test_a_class_may_have_a_newer_argument_that_refers_to_a_newer_key(tmp_path):
    begin(tmp_path, "augment_room: 0", "  room: 0", "  seed: 7", "  noise_folder: ''", "head_weight: 1.0")
    resume(tmp_path)
    with pytest.raises(InputError, match="another augmentation, augment_room;"):
        resume(tmp_path, "--augment_room", "0.5")


def test_an_epoch_that_is_done_again_replaces_its_row_and_later_ones(tmp_path):
    for epoch, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5)):
        rows = record_epoch({"epoch": epoch, "train_loss": loss}, tmp_path)
    assert rows == read_epochs(tmp_path) == [{"epoch": 1, "train_loss": 5.0}, {"epoch": 2, "train_loss": 4.5}]
