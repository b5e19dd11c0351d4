"""Augmentation: drawn from seed, epoch and utterance alone, for the share that was asked for, and as its name says."""

import numpy as np
import pytest

from tests.unit.augmentation.test_rooms_and_noises import RATE, tone, write_tones
from voice_biometrics.augmentation.augment import PEAK, Augmentation, draw_microphone
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.conditions import conditions_named

KINDS = ["room", "noise", "channel", "telephone"]
SPEECH = tone(440) * (1 + 0.5 * tone(3))

pytestmark = pytest.mark.usefixtures("few_sources")


@pytest.fixture
def make(tmp_path):
    """Make an augmentation whose babble are four speakers of one tone each."""
    voices = write_tones(tmp_path)

    def make(seed: int = 1, **arguments) -> Augmentation:
        augmentation = Augmentation(RATE, seed, **arguments)
        augmentation.prepare(voices)
        return augmentation

    return make


def level_db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(samples**2))


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Return the power at each Hz of a second."""
    return np.abs(np.fft.rfft(samples)) ** 2


def test_nothing_happens_unless_asked_for(make):
    augmentation = make()
    assert augmentation(SPEECH, 1, "u", "s") is SPEECH
    assert augmentation.speed_number(1, "u") == 0
    assert augmentation.rooms == augmentation.noises == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_follows_from_seed_epoch_and_utterance_alone(make, kind):
    augmentation = make(**{kind: 1.0})
    first = augmentation(SPEECH, 1, "u", "s")
    again = make(**{kind: 1.0})
    for utterance in ("x", "y"):
        again(SPEECH, 3, utterance, "s")  # what came before does not matter
    np.testing.assert_array_equal(first, again(SPEECH, 1, "u", "s"))
    others = [augmentation(SPEECH, 2, "u", "s"), augmentation(SPEECH, 1, "v", "s")]
    others.append(make(**{kind: 1.0}, seed=2)(SPEECH, 1, "u", "s"))
    if kind == "telephone":
        others = [augmentation(SPEECH, epoch, "u", "s") for epoch in range(2, 12)]  # there are but 48 lines
        assert any(not np.array_equal(first, other) for other in others)
    else:
        assert not any(np.array_equal(first, other) for other in others)
    assert first.dtype == np.float32 and first.shape == SPEECH.shape and np.isfinite(first).all()


def test_the_share_of_altered_crops_is_the_one_that_was_asked_for(make):
    crop = SPEECH[:4000]
    for kind in KINDS:
        augmentation = make(**{kind: 0.3})
        num_altered = sum(not np.array_equal(augmentation(crop, 1, f"u{i}", "s"), crop) for i in range(300))
        assert 60 < num_altered < 120, kind


def test_one_kind_does_not_bring_another_with_it(make):
    augmentation = make(room=0.5, channel=0.5)
    kinds = dict.fromkeys([(False, False), (False, True), (True, False), (True, True)], 0)
    click = np.zeros(4000, np.float32)
    click[0] = 0.5
    for number in range(200):
        heard = augmentation(click, 1, f"u{number}", "s")
        rings, relevelled = bool(np.abs(heard[800:]).max() > 1e-5), bool(abs(np.abs(heard).max() - 0.5) > 1e-6)
        kinds[rings, relevelled] += 1
    assert min(kinds.values()) > 25


def test_noise_is_coloured_or_babble_within_its_range(make):
    augmentation = make(noise=1.0)
    ratios, tonal = [], []
    for number in range(60):
        noise = augmentation(SPEECH, 1, f"u{number}", "s0") - SPEECH
        ratios.append(level_db(SPEECH) - level_db(noise))
        power = np.sort(spectrum(noise))[::-1]
        tonal.append(power[:8].sum() > 0.9 * power.sum())  # babble of the tones of other speakers
    assert -0.01 <= min(ratios) < 6 and 19 < max(ratios) <= 25.01
    assert 15 < sum(tonal) < 45


def test_silence_comes_back_as_silence(make):
    augmentation = make(**dict.fromkeys(KINDS, 1.0))
    for samples in (np.zeros(1600, np.float32), np.ones(1, np.float32)):
        heard = augmentation(samples, 1, "u", "s")
        assert heard.shape == samples.shape and np.isfinite(heard).all()
        assert samples.any() or not heard.any()


def test_channel_draws_levels_evenly_in_db(make):
    augmentation = make(channel=1.0)
    peaks = np.array([np.abs(augmentation(SPEECH, 1, f"u{number}", "s")).max() for number in range(100)])
    assert PEAK[0] <= peaks.min() < 0.02 and 0.7 < peaks.max() <= 1.0
    assert 0.03 < np.median(peaks) < 0.3  # evenly over 0.01 to 1 would give 0.5


def test_microphones_differ_in_number_and_place_of_their_bands():
    rng = np.random.default_rng(0)
    freq_hz = [200, 500, 1200, 3000, 6000]
    gains = []
    for _ in range(200):
        response = np.fft.rfft(draw_microphone(RATE, rng), RATE)
        gains.append(20 * np.log10(np.abs(response[freq_hz])))
    gains = np.array(gains)
    assert (np.abs(gains).max(axis=0) > 7).all() and np.abs(gains).max() < 13.5
    assert (np.abs(gains.mean(axis=0)) < 1.5).all()
    assert abs(np.corrcoef(gains[:, 0], gains[:, 4])[0, 1]) < 0.5


def test_a_telephone_line_has_nothing_above_4_khz(make):
    heard = make(telephone=1.0)(np.random.default_rng(0).standard_normal(RATE).astype(np.float32), 1, "u", "s")
    assert level_db(heard) > -10
    assert spectrum(heard)[4200:].mean() < 1e-3 * spectrum(heard)[500:2500].mean()


def test_training_does_not_hear_the_condition_that_it_is_judged_by(make):
    (condition,) = conditions_named("channel")
    judged = condition(SPEECH, RATE, "u")
    for epoch in range(5):
        heard = make(room=1.0, noise=1.0, channel=1.0)(SPEECH, epoch, "u", "s")
        assert np.abs(np.corrcoef(heard - SPEECH, judged - SPEECH)[0, 1]) < 0.999


def test_each_speed_comes_in_turn_and_by_seed_epoch_and_utterance(make):
    augmentation = make(speeds=[0.9, 1.0, 1.1])
    numbers = [augmentation.speed_number(1, f"u{i}") for i in range(300)]
    assert np.bincount(numbers).min() > 70
    assert numbers == [make(speeds=[0.9, 1.0, 1.1]).speed_number(1, f"u{i}") for i in range(300)]
    assert numbers != [augmentation.speed_number(2, f"u{i}") for i in range(300)]


def test_what_cannot_be_done_is_refused_by_name():
    for arguments, found in (
        ({"room": 1.5}, "augment_room 1.5"),
        ({"noise": -0.1}, "augment_noise -0.1"),
        ({"speeds": []}, "speeds"),
        ({"speeds": [1.0, 1.0]}, "different numbers"),
        ({"speeds": [3.0]}, "0.5 to 2"),
        ({"speeds": 0.9}, "speeds"),
    ):
        with pytest.raises(InputError, match=found):
            Augmentation(RATE, 1, **arguments)
