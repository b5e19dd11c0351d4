"""Every variant trains and evaluates; those that carry a state go on after a kill to the same figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train
from tests.conftest import write_speakers
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.training.brain import SpeakerBrain

BEST = [Path("hparams/ecapa_small_best.yaml"), Path("hparams/ecapa_small_best_10ms.yaml")]
ABLATIONS = Path("hparams/ablations")
VARIANTS = [path for path in sorted(ABLATIONS.rglob("*.yaml")) if path.parent.name != "augmentation"]  # tested apart
QUICK = ["--number_of_epochs", "1", "--batch_size", "8", "--sentence_len", "0.4", "--valid_speakers", "2"]
QUICK += ["--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """6 speakers to train on (2 of them held out) and 2 to test."""
    folder = tmp_path_factory.mktemp("corpus")
    write_speakers(folder / "train", num_speakers=6, num_utterances=4, duration_s=0.6)
    return write_speakers(folder / "test", num_speakers=2, num_utterances=2, duration_s=0.6, first_speaker=6).parent


def arguments(hparams: Path | str, data_folder: Path, output_folder: Path, **changes) -> list[str]:
    given = {"corpus": "speaker_folders", "data_folder": data_folder, "output_folder": output_folder}
    given |= dict(zip((key[2:] for key in QUICK[::2]), QUICK[1::2], strict=True)) | changes
    return [str(hparams), *(str(item) for key, value in given.items() for item in (f"--{key}", value))]


@pytest.fixture(scope="module", autouse=True)
def without_pictures():
    """Leave out what takes most of the time of so small a run, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speechbrain.utils.logger.get_environment_description", lambda: "")
        patch.setattr("voice_biometrics.training.brain.plot_curves", lambda *args: None)
        yield


@pytest.fixture(scope="module")
def base_run(corpus, tmp_path_factory) -> Path:
    """A run of ecapa_small on the same speakers."""
    folder = tmp_path_factory.mktemp("base")
    train.main(arguments("hparams/ecapa_small.yaml", corpus, folder))
    return folder


@pytest.fixture(scope="module")
def further_corpus(tmp_path_factory) -> Path:
    """3 more speakers, of one long utterance each."""
    return write_speakers(tmp_path_factory.mktemp("further"), 3, num_utterances=1, duration_s=1.5, first_speaker=8)


def changes_of(path: Path, request) -> dict:
    """What a variant cannot know by itself: the folder of another network or corpus, how few utterances there are."""
    name = path.stem
    if name in ("large_margin", "transfer"):
        return {"pretrained": request.getfixturevalue("base_run"), "frozen_epochs": 0}
    if name == "transfer_speechbrain":
        return {"pretrained": request.getfixturevalue("published"), "frozen_epochs": 0}
    given = read_command_line([str(path)], "")
    if "teacher_cost" in given.text and "embedding_costs: []" not in given.text:
        return {"teacher": "pretrained"}  # any model folder
    if "," in given.settings["corpus"]:
        folders = f"{request.getfixturevalue('corpus')},{request.getfixturevalue('further_corpus')}"
        corpora = {"corpus": "speaker_folders,speaker_folders", "valid_corpus": "speaker_folders"}
        return {**corpora, "data_folder": folders}
    if name == "score_as_norm":
        return {"as_norm_top": 10}  # of 16 utterances
    return {}


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder laid out like SpeechBrain's published ECAPA."""
    network = read_command_line([str(ABLATIONS / "network" / "ecapa_1024.yaml")], "").build()["embedding_model"]
    torch.save(network.state_dict(), tmp_path / "embedding_model.ckpt")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("path", [*BEST, *VARIANTS], ids=lambda path: path.stem)
def test_each_variant_trains_and_evaluates(corpus, tmp_path, path, request):
    changes = {"data_folder": corpus} | changes_of(path, request)
    given = arguments(path, output_folder=tmp_path / "run", **changes)
    train.main(given)
    losses = pd.read_csv(tmp_path / "run" / "metrics.csv")["train_loss"]
    assert losses.between(0, 100).all()
    assert np.isfinite(scores_of_best(given)).all()


STATEFUL = """
pretrained: ""
frozen_epochs: 1
average_epochs: 1
utterances_per_speaker: 2
lr_annealing: !name:torch.optim.lr_scheduler.OneCycleLR
    max_lr: !ref <lr>
    epochs: !ref <number_of_epochs>
compute_cost:
    loss_fn: !new:voice_biometrics.training.losses.WarmUpMargin
        warm_up_epochs: 1.9
"""


class Killed(BaseException):
    """Stands for a kill: nothing in the program handles it."""


def stop_in_step(patch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Let training die when this step begins, some steps after the last checkpoint."""
    begin = SpeakerBrain.on_fit_batch_start

    def begin_or_die(brain, *args):
        if (brain.epoch, brain.step) == (epoch, step):
            raise Killed
        begin(brain, *args)

    patch.setattr(SpeakerBrain, "on_fit_batch_start", begin_or_die)


def test_all_that_carries_a_state_goes_on_after_a_kill_within_an_epoch_to_the_same_figures(
    corpus, tmp_path, monkeypatch
):
    first = arguments("tests/hparams/tiny.yaml", corpus, tmp_path / "first")
    train.main(first)
    (tmp_path / "variant.yaml").write_text(f"base: {Path('tests/hparams/tiny.yaml').resolve()}\n{STATEFUL}")
    changes = {"number_of_epochs": 2, "batch_size": 4, "ckpt_interval_steps": 2, "ckpt_interval_minutes": 0}
    changes["pretrained"] = tmp_path / "first"
    runs = [arguments(tmp_path / "variant.yaml", corpus, tmp_path / place, **changes) for place in ("whole", "killed")]
    train.main(runs[0])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_in_step(patch, epoch=2, step=4)  # a step after the last checkpoint
        train.main(runs[1])
    train.main(runs[1])
    whole, killed = (pd.read_csv(tmp_path / place / "metrics.csv") for place in ("whole", "killed"))
    figures = ["epoch", "train_loss", "lr", "eer"]
    assert whole[figures].to_numpy().tolist() == killed[figures].to_numpy().tolist()
    for part in ("embedding_model", "trained_embedding_model", "classifier", "optimizer", "lr_annealing"):
        assert same_tensors(*(torch.load(newest(tmp_path / place) / f"{part}.ckpt") for place in ("whole", "killed")))
    last = newest(tmp_path / "whole")
    assert not same_tensors(
        torch.load(last / "embedding_model.ckpt"), torch.load(last / "trained_embedding_model.ckpt")
    )
    manifests = tmp_path / "whole" / "manifests"
    trials = {"manifest_file": manifests / "valid.csv", "trials_file": manifests / "valid_trials.csv"}
    is_target = pd.read_csv(trials["trials_file"])["target"].to_numpy() == 1
    found, _ = equal_error_rate(scores_of_best(runs[0], **trials), is_target)
    assert found == whole["eer"].min()  # the average was evaluated in training, and is what is loaded


def scores_of_best(given: list[str], **trials: Path) -> np.ndarray:
    """Return the scores (trials,) by the best checkpoint of a run."""
    run = TrainedRun.from_command_line(given, "")
    return run.score(run.trial_set(**trials)).scores


def newest(run_folder: Path) -> Path:
    return max((run_folder / "save").glob("CKPT*"), key=lambda path: (path / "CKPT.yaml").stat().st_mtime_ns)


def same_tensors(left, right) -> bool:
    """Tell whether two checkpoints' values are equal to the bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tensors(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_tensors, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def test_a_frozen_network_keeps_its_weights_and_statistics_while_the_head_learns(
    corpus, base_run, tmp_path, monkeypatch
):
    changes = {"pretrained": base_run, "frozen_epochs": 1, "number_of_epochs": 2, "ckpt_interval_minutes": 0}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_in_step(patch, epoch=2, step=2)
        train.main(arguments("hparams/ecapa_small.yaml", corpus, tmp_path, ckpt_interval_steps=1, **changes))
    theirs = {part: torch.load(newest(base_run) / f"{part}.ckpt") for part in ("embedding_model", "classifier")}
    saved = (tmp_path / "save").glob("CKPT*/embedding_model.ckpt")
    after = sorted(saved, key=lambda path: path.stat().st_mtime_ns)  # names of one second may come in any order
    equal = [same_tensors(torch.load(path), theirs["embedding_model"]) for path in after]
    assert equal == [True, False]  # at the end of epoch 1, and after the first step of epoch 2
    head = torch.load(after[0].with_name("classifier.ckpt"))
    assert not same_tensors(head, theirs["classifier"])
