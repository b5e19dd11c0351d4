"""Training with augmentation: each variant trains, its head fits, and a stopped run goes on exactly."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import eval_eer
import train
from tests.conftest import write_speakers
from voice_biometrics.training.brain import SpeakerBrain

TINY = Path("tests/hparams/tiny.yaml")
ONE_EPOCH = ["--number_of_epochs", "1"]
VARIANTS = sorted(path.stem for path in Path("hparams/ablations").rglob("augment_*.yaml"))

pytestmark = pytest.mark.usefixtures("few_sources")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_speakers(tmp_path_factory.mktemp("corpus"), num_speakers=6, num_utterances=6)


def arguments(corpus: Path, folder: Path, variant: str, *more: str) -> list[str]:
    """Return the command line of a variant with the tiny network and two batches of 12 an epoch."""
    base = Path(f"hparams/{variant}.yaml").resolve()
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(TINY.read_text().replace("../../hparams/ecapa_small.yaml", str(base)))
    own = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    return [str(path), *own, "--device", "cpu", "--batch_size", "12", *more]


@pytest.fixture(scope="module")
def unaugmented_loss(corpus, tmp_path_factory) -> float:
    folder = tmp_path_factory.mktemp("plain") / "run"
    train.main(arguments(corpus, folder, "ecapa_small", *ONE_EPOCH))
    return pd.read_csv(folder / "metrics.csv")["train_loss"][0]


def test_there_is_a_variant_for_each_augmentation():
    kinds = ["all", "channel", "masking", "noise", "reverb", "speed", "telephone"]
    assert VARIANTS == [f"augment_{kind}" for kind in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_trains_otherwise_than_the_base_and_evaluates(corpus, tmp_path, unaugmented_loss, variant):
    given = arguments(corpus, tmp_path / "run", f"ablations/augmentation/{variant}", *ONE_EPOCH)
    train.main(given)
    assert abs(pd.read_csv(tmp_path / "run" / "metrics.csv")["train_loss"][0] - unaugmented_loss) > 1e-4
    num_classes = 12 if variant in ("augment_speed", "augment_all") else 4  # speakers, at three speeds or one
    head = next((tmp_path / "run" / "save").glob("CKPT*/classifier.ckpt"))
    assert torch.load(head)["weight"].shape == (num_classes, 16)
    eval_eer.main(given)
    assert (tmp_path / "run" / "eval" / "valid" / "metrics.json").is_file()


def test_an_augmented_run_that_was_stopped_within_an_epoch_goes_on_exactly(corpus, tmp_path, monkeypatch):
    every_step = ["--ckpt_interval_minutes", "0", "--ckpt_interval_steps", "1"]
    whole, stopped = (
        arguments(corpus, tmp_path / name, "ablations/augmentation/augment_all", *every_step) for name in "ab"
    )
    train.main(whole)
    check = SpeakerBrain.check_loss_isfinite

    def stop(brain, loss):
        if brain.epoch == 2 and brain.step == 2:
            raise KeyboardInterrupt
        check(brain, loss)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(SpeakerBrain, "check_loss_isfinite", stop)
        train.main(stopped)
    assert len(pd.read_csv(tmp_path / "b" / "metrics.csv")) == 1
    train.main([*stopped, "--num_workers", "1"])  # a loading process more does not matter
    a, b = (pd.read_csv(tmp_path / name / "metrics.csv")[["epoch", "train_loss", "lr", "eer"]] for name in "ab")
    assert len(a) == 2
    pd.testing.assert_frame_equal(a, b, rtol=1e-6)


def test_an_impossible_share_is_refused_with_one_line(corpus, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(arguments(corpus, tmp_path / "run", "ecapa_small", "--augment_noise", "2"))
    assert end.value.code == 2 and "augment_noise 2" in capsys.readouterr().err
