"""Training crops: where they start, how long they are, and that they follow from seed, epoch and utterance alone."""

import numpy as np
import pytest
import soundfile
import torch

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.augmentation.augment import Augmentation
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_utterances
from voice_biometrics.training.dataio import CropReader, several_crops, training_dataset


@pytest.fixture
def ramp(tmp_path):
    """A file whose samples tell where they stand."""
    soundfile.write(tmp_path / "ramp.wav", np.linspace(0.1, 0.9, 32000), 16000, subtype="FLOAT")
    return str(tmp_path / "ramp.wav")


def crop(crops: CropReader, wav: str, utt_id: str = "u") -> torch.Tensor:
    return crops(utt_id, wav, 0, 32000, 2.0)


def test_a_crop_is_a_piece_of_the_utterance_and_differs_by_seed_epoch_and_utterance(ramp):
    crops = CropReader(0.5, 16000, seed=1)
    first = crop(crops, ramp)
    assert first.shape == (8000,) and torch.all(first.diff() > 0)
    assert torch.equal(first, crop(CropReader(0.5, 16000, seed=1), ramp))
    assert not torch.equal(first, crop(CropReader(0.5, 16000, seed=2), ramp))
    assert not torch.equal(first, crop(crops, ramp, "v"))
    crops.epoch = 1
    assert not torch.equal(first, crop(crops, ramp))


def test_crops_reach_from_the_beginning_to_the_end(ramp):
    crops = CropReader(1.0, 16000, seed=0)
    starts = []
    for crops.epoch in range(200):
        starts.append(float(crop(crops, ramp)[0]))
    assert min(starts) < 0.12 and 0.48 < max(starts) < 0.51  # of 0.1 to 0.9 over two seconds


def test_a_short_utterance_is_repeated_not_padded_with_zeros(ramp):
    long = crop(CropReader(3.0, 16000, seed=0), ramp)
    assert long.shape == (48000,) and float(long.min()) >= 0.1
    assert torch.equal(long[32000:], long[:16000])


def test_zero_means_whole_utterances(ramp):
    assert crop(CropReader(0, 16000, seed=0), ramp).shape == (32000,)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_crop_of_another_rate_has_the_same_length(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(2 * rate, 0.1), rate)
    assert CropReader(1.0, 16000, seed=0)("u", str(tmp_path / "a.wav"), 0, 2 * rate, 2.0).shape == (16000,)


def test_dataset_numbers_the_speakers_by_name(speakers, tmp_path):
    settings = Settings("speaker_folders", str(speakers), valid_speakers=2)
    prepare(settings, tmp_path / "m")
    dataset = training_dataset(tmp_path / "m" / "train.csv", settings.replacements(), CropReader(0.5, 16000, 0))
    items = [dataset[i] for i in range(len(dataset))]
    number_of = {item["id"].split("/")[0]: int(item["spk_id_encoded"]) for item in items}
    assert sorted(number_of.values()) == [0, 1, 2, 3]
    assert [number_of[name] for name in sorted(number_of)] == [0, 1, 2, 3]
    assert items[0]["sig"].shape == (8000,)


def test_a_root_that_is_not_given_and_a_moved_folder_are_named(speakers, tmp_path):
    settings = Settings("speaker_folders", str(speakers), valid_speakers=2)
    prepare(settings, tmp_path / "m")
    assert (
        read_utterances(tmp_path / "m" / "train.csv", settings.replacements())["wav"]
        .str.startswith(str(speakers))
        .all()
    )
    with pytest.raises(InputError, match=r"\$data_root is not a known root"):
        read_utterances(tmp_path / "m" / "train.csv", {"data_root.other": "x"})
    with pytest.raises(InputError, match="gone.*--data_folder"):
        read_utterances(tmp_path / "m" / "train.csv", {"data_root": str(tmp_path / "gone")})


def test_a_long_utterance_gives_several_crops_each_drawn_by_itself(tmp_path):
    for name, duration_s in (("a/short", 1.9), ("b/long", 6.5)):
        (tmp_path / name).parent.mkdir()
        soundfile.write(
            tmp_path / f"{name}.wav", np.linspace(0.1, 0.9, round(16000 * duration_s)), 16000, subtype="FLOAT"
        )
    settings = Settings("speaker_folders", str(tmp_path), valid_speakers=0)
    prepare(settings, tmp_path / "m")
    given = (tmp_path / "m" / "train.csv", settings.replacements(), CropReader(1.0, 16000, 0))
    assert len(training_dataset(*given)) == 2
    items = [item for item in iter(training_dataset(*given, crop_every_s=2.0))]
    assert [item["id"] for item in items] == ["a/short", "b/long", "b/long (crop 2)", "b/long (crop 3)"]
    assert len({float(item["sig"][0]) for item in items[1:]}) == 3
    assert [int(item["spk_id_encoded"]) for item in items] == [0, 1, 1, 1]


@pytest.mark.parametrize("every_s, crop_s", [(-1.0, 3.0), (2.0, 0)])
def test_several_crops_of_whole_utterances_and_a_negative_interval_are_refused(every_s, crop_s):
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


@pytest.mark.parametrize("duration_s", [1.0, 3.0])
def test_a_crop_at_another_speed_is_as_long_and_as_much_higher(tone, duration_s):
    augmentation = Augmentation(16000, 1, speeds=SPEEDS)
    crops = CropReader(duration_s, 16000, 1, augmentation)
    for number in range(10):
        heard = crop(crops, tone, f"u{number}")
        assert heard.shape == (round(duration_s * 16000),)
        expected = 1000 * SPEEDS[augmentation.speed_number(0, f"u{number}")]
        assert pitch_hz(heard) == pytest.approx(expected, rel=0.01)


def test_a_whole_utterance_at_another_speed_is_shorter_or_longer(tone):
    crops = CropReader(0, 16000, 1, Augmentation(16000, 1, speeds=[1.25]))
    assert crop(crops, tone).numel() == pytest.approx(32000 / 1.25, abs=1)


def test_a_voice_at_another_speed_is_a_speaker_of_its_own(speakers, tmp_path):
    settings = Settings("speaker_folders", str(speakers), valid_speakers=2)
    prepare(settings, tmp_path / "m")
    augmentation = Augmentation(16000, 1, speeds=SPEEDS)
    crops = CropReader(0.5, 16000, 1, augmentation)
    dataset = training_dataset(tmp_path / "m" / "train.csv", settings.replacements(), crops)
    names = sorted({dataset.data[utt_id]["spk_id"] for utt_id in dataset.data_ids})
    labels = set()
    for crops.epoch in range(6):
        for number, utt_id in enumerate(dataset.data_ids):
            label = int(dataset[number]["spk_id_encoded"])
            speed_number = augmentation.speed_number(crops.epoch, utt_id)
            assert label == names.index(dataset.data[utt_id]["spk_id"]) + 4 * speed_number
            labels.add(label)
    assert labels == set(range(12))


def test_the_dataset_prepares_the_augmentation_with_its_own_speakers(speakers, tmp_path, few_sources):
    settings = Settings("speaker_folders", str(speakers), valid_speakers=2)
    prepare(settings, tmp_path / "m")
    crops = CropReader(0.5, 16000, 1, Augmentation(16000, 1, room=1.0, noise=1.0))
    dataset = training_dataset(tmp_path / "m" / "train.csv", settings.replacements(), crops)
    plain = training_dataset(tmp_path / "m" / "train.csv", settings.replacements(), CropReader(0.5, 16000, 1))
    assert dataset[0]["sig"].shape == (8000,) and dataset[0]["sig"].dtype == torch.float32
    assert not torch.equal(dataset[0]["sig"], plain[0]["sig"])
    babble = crops.augmentation.noises[1]
    assert set(babble.speakers) == {dataset.data[utt_id]["spk_id"] for utt_id in dataset.data_ids}
