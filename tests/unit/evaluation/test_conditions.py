"""Conditions: the same for an utterance in every process, another for each utterance, and as strong as they say."""

import pickle

import numpy as np
import pytest

from tests.conftest import make_voice
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.conditions import Condition, conditions_named

RATE = 16000
ALL = ["channel", "noise", "telephone", "short"]
VOICE = make_voice(120, 2.5, seed=0)


def only(text: str) -> Condition:
    (condition,) = conditions_named(text)
    return condition


def noise_ratio_db(samples: np.ndarray, altered: np.ndarray) -> float:
    return 10 * np.log10(np.sum(samples**2) / np.sum((altered - samples) ** 2))


def test_names_are_those_of_the_tables():
    assert [condition.name for text in ALL for condition in conditions_named(text)] == [
        "channel",
        *("noise, 20 dB SNR", "noise, 10 dB SNR", "noise, 5 dB SNR", "noise, 0 dB SNR"),
        "telephone",
        *("short, 1 s", "short, 2 s", "short, 3 s"),
    ]
    stated = [condition.name for condition in conditions_named("noise:15,3,15")]
    assert stated == ["noise, 15 dB SNR", "noise, 3 dB SNR"]
    assert only("short:1.5").name == "short, 1.5 s"


def test_an_utterance_is_altered_alike_each_time_and_unlike_another():
    for text in ("channel", "noise:5", "short:1"):
        condition = only(text)
        first = condition(VOICE, RATE, "a")
        np.testing.assert_array_equal(first, only(text)(VOICE, RATE, "a"))
        np.testing.assert_array_equal(first, pickle.loads(pickle.dumps(condition))(VOICE, RATE, "a"))
        assert not np.array_equal(first, condition(VOICE, RATE, "b"))


def test_conditions_draw_differently_for_the_same_utterance():
    loud, quiet = (condition(VOICE, RATE, "a") - VOICE for condition in conditions_named("noise:20,0"))
    assert abs(np.corrcoef(loud, quiet)[0, 1]) < 0.1


def test_what_is_drawn_follows_from_condition_and_utterance_alone_in_any_process():
    drawn = Condition("channel", lambda samples, sample_rate, rng: rng.integers(1000, size=3))(VOICE, RATE, "s1/u2")
    assert drawn.tolist() == [875, 285, 331]


def test_noise_has_its_ratio_and_colours_differ():
    ratios = [noise_ratio_db(VOICE, only("noise:5")(VOICE, RATE, f"u{i}")) for i in range(5)]
    assert ratios == pytest.approx([5] * 5, abs=0.01)
    centroids = []
    for number in range(20):
        spectrum = np.abs(np.fft.rfft(only("noise:5")(VOICE, RATE, f"u{number}") - VOICE)) ** 2
        centroids.append(np.average(np.arange(spectrum.size), weights=spectrum) / spectrum.size)
    assert min(centroids) < 0.1 and max(centroids) > 0.35  # of the band's width; white has 0.5


def test_channel_draws_its_level_from_its_whole_range():
    peaks = np.array([np.abs(only("channel")(VOICE, RATE, f"u{number}")).max() for number in range(60)])
    assert 0.02 <= peaks.min() < 0.1 and 0.8 < peaks.max() <= 0.9


def test_channel_changes_timbre_and_adds_noise_to_pauses():
    speech = np.concatenate([VOICE, np.zeros(RATE, np.float32)])
    altered = np.stack([only("channel")(speech, RATE, f"u{number}") for number in range(20)])
    pauses, voices = altered[:, -RATE // 2 :], altered[:, : VOICE.size]  # half a second on, the room is silent
    ratio_db = 10 * np.log10(np.mean(voices**2, axis=1) / np.mean(pauses**2, axis=1))
    assert 10 < ratio_db.min() < 18 and 24 < ratio_db.max() < 34
    spectrum = np.abs(np.fft.rfft(voices)) ** 2
    edges = np.array([700, 1400, 2800]) * VOICE.size // RATE
    bands = np.add.reduceat(spectrum, edges, axis=1)[:, :2]  # 700 to 1400, 1400 to 2800 Hz
    tilt_db = 10 * np.log10(bands[:, 0] / bands[:, 1])
    assert np.ptp(tilt_db) > 8


def test_short_is_a_random_cut_and_a_shorter_utterance_stays_whole():
    ramp = np.arange(3 * RATE, dtype=np.float32)
    starts = []
    for number in range(50):
        cut = only("short:1.5")(ramp, RATE, f"u{number}")
        assert cut.shape == (1.5 * RATE,) and (np.diff(cut) == 1).all()
        starts.append(cut[0] / RATE)
    assert 0 <= min(starts) < 0.2 and 1.3 < max(starts) <= 1.5
    np.testing.assert_array_equal(only("short:3")(VOICE, RATE, "u"), VOICE)


def test_any_length_gives_finite_float32_of_the_same_length_unless_cut():
    for text in ALL:
        for condition in conditions_named(text):
            for samples in (np.zeros(1, np.float32), np.full(1600, 0.5, np.float32), VOICE):
                altered = condition(samples, RATE, "u")
                assert altered.dtype == np.float32 and np.isfinite(altered).all()
                assert altered.shape == samples.shape or condition.longest_s < samples.size / RATE


def test_unknown_names_and_malformed_values_are_told_with_what_there_is():
    for text in ("", "rain", "channel:3", "noise:", "noise:loud", "noise:nan", "noise:-1e9", "short:0", "short:inf"):
        with pytest.raises(InputError, match="channel, noise, telephone or short"):
            conditions_named(text)
