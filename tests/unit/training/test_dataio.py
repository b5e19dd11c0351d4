"""Training crops: where they start, how long they are, and that they follow from seed, epoch and utterance alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.epoch_loop import EpochCounter

import train
from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.augmentation.augment import Augmentation
from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.training.dataio import CropReader, several_crops


@pytest.fixture
def ramp(tmp_path):
    """A file whose samples tell where they stand."""
    soundfile.write(tmp_path / "ramp.wav", np.linspace(0.1, 0.9, 32000), 16000, subtype="FLOAT")
    return str(tmp_path / "ramp.wav")


def reader(duration_s: float, seed: int = 0, epoch: int = 0, speeds=(1.0,)) -> CropReader:
    counter = EpochCounter(limit=200)
    counter.current = epoch
    return CropReader(duration_s, 16000, seed, Augmentation(16000, seed, speeds=speeds), counter)


def crop(crops: CropReader, wav: str, utt_id: str = "u") -> torch.Tensor:
    return crops(utt_id, wav, 0, 32000, 2.0, "s")


def test_a_crop_is_a_piece_of_the_utterance_and_differs_by_seed_epoch_and_utterance(ramp):
    first = crop(reader(0.5, seed=1), ramp)
    assert first.shape == (8000,) and torch.all(first.diff() > 0)
    assert torch.equal(first, crop(reader(0.5, seed=1), ramp))
    assert not torch.equal(first, crop(reader(0.5, seed=2), ramp))
    assert not torch.equal(first, crop(reader(0.5, seed=1), ramp, "v"))
    assert not torch.equal(first, crop(reader(0.5, seed=1, epoch=1), ramp))


def test_crops_reach_from_the_beginning_to_the_end(ramp):
    starts = [float(crop(reader(1.0, epoch=epoch), ramp)[0]) for epoch in range(200)]
    assert min(starts) < 0.12 and 0.48 < max(starts) < 0.51  # of 0.1 to 0.9 over two seconds


def test_a_short_utterance_is_repeated_not_padded_and_zero_means_whole_utterances(ramp):
    long = crop(reader(3.0), ramp)
    assert long.shape == (48000,) and float(long.min()) >= 0.1
    assert torch.equal(long[32000:], long[:16000])
    assert crop(reader(0), ramp).shape == (32000,)


def test_a_crop_of_another_rate_has_the_same_length(tmp_path):
    for rate in (8000, 44100):
        soundfile.write(tmp_path / "a.wav", np.full(2 * rate, 0.1), rate)
        assert reader(1.0)("u", str(tmp_path / "a.wav"), 0, 2 * rate, 2.0, "s").shape == (16000,)


def prepared(corpus: Path, folder: Path, *more: str, held_out: int = 2) -> dict:
    """Return the hparams of a run in ``folder`` whose manifests are written."""
    given = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(folder)]
    run = read_command_line(["tests/hparams/tiny.yaml", *given, "--valid_speakers", str(held_out), *more], "")
    prepare(Settings.from_hparams(run.settings), folder / "manifests")
    return run.build()


def test_a_long_utterance_gives_several_crops_each_drawn_by_itself(tmp_path):
    for name, duration_s in (("a/short", 1.9), ("b/long", 6.5)):
        (tmp_path / "c" / name).parent.mkdir(parents=True)
        ramp = np.linspace(0.1, 0.9, round(16000 * duration_s))
        soundfile.write(tmp_path / "c" / f"{name}.wav", ramp, 16000, subtype="FLOAT")
    hparams = prepared(tmp_path / "c", tmp_path / "run", "--sentence_len", "1.0", held_out=0)
    train_data, valid_data, _ = train.dataio_prep(hparams)
    assert len(train_data) == 2 and len(valid_data) == 0
    items = [item for item in iter(train.dataio_prep(hparams | {"crop_every_s": 2.0})[0])]
    assert [item["id"] for item in items] == ["a/short", "b/long", "b/long (crop 2)", "b/long (crop 3)"]
    assert len({float(item["sig"][0]) for item in items[1:]}) == 3
    assert [int(item["spk_id_encoded"]) for item in items] == [0, 1, 1, 1]


def test_several_crops_of_whole_utterances_and_a_negative_interval_are_refused():
    for every_s, crop_s in ((-1.0, 3.0), (2.0, 0)):
        with pytest.raises(InputError, match="crop_every_s"):
            several_crops({}, every_s, crop_s)


SPEEDS = [0.8, 1.0, 1.25]


@pytest.fixture
def tone(tmp_path):
    """Two seconds of 1 kHz."""
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000), 16000)
    return str(tmp_path / "tone.wav")


def pitch_hz(samples: torch.Tensor) -> float:
    return float(torch.fft.rfft(samples * torch.hann_window(samples.numel())).abs().argmax() * 16000 / samples.numel())


def test_a_crop_at_another_speed_is_as_long_and_as_much_higher(tone):
    for number in range(20):
        duration_s = 1.0 if number < 10 else 3.0
        crops = reader(duration_s, speeds=SPEEDS)
        heard = crop(crops, tone, f"u{number}")
        assert heard.shape == (round(duration_s * 16000),)
        assert pitch_hz(heard) == pytest.approx(1000 * SPEEDS[crops.speed_number(f"u{number}")], rel=0.01)
    assert crop(reader(0, speeds=[1.25]), tone).numel() == pytest.approx(32000 / 1.25, abs=1)  # a whole utterance


def test_classes_are_speakers_by_name_at_each_speed_and_the_epoch_is_that_of_the_counter(speakers, tmp_path):
    hparams = prepared(speakers, tmp_path / "run", "--speeds", str(SPEEDS))
    dataset, valid_data, label_encoder = train.dataio_prep(hparams)
    assert dataset[0]["sig"].shape == (12800,) and len(label_encoder) == 12 and len(valid_data) == 8
    assert set(valid_data[0]) == {"id", "sig"} and valid_data[0]["sig"].shape == (19200,)
    names = sorted({dataset.data[utt_id]["spk_id"] for utt_id in dataset.data_ids})
    labels = set()
    for epoch in range(6):
        hparams["epoch_counter"].current = epoch
        for number, utt_id in enumerate(dataset.data_ids):
            label = int(dataset[number]["spk_id_encoded"])
            speed_number = hparams["augmentation"].speed_number(epoch, utt_id)
            assert label == names.index(dataset.data[utt_id]["spk_id"]) + 4 * speed_number
            labels.add(label)
    assert labels == set(range(12))


def test_the_augmentation_has_babble_of_the_training_speakers(speakers, tmp_path, few_sources):
    hparams = prepared(speakers, tmp_path / "run", "--augment_room", "1", "--augment_noise", "1")
    dataset = train.dataio_prep(hparams)[0]
    plain = train.dataio_prep(hparams | {"augmentation": Augmentation(16000, 1)})[0]
    assert dataset[0]["sig"].shape == plain[0]["sig"].shape and dataset[0]["sig"].dtype == torch.float32
    assert not torch.equal(dataset[0]["sig"], plain[0]["sig"])
    babble = hparams["augmentation"].noises[1]
    assert set(babble.speakers) == {dataset.data[utt_id]["spk_id"] for utt_id in dataset.data_ids}
