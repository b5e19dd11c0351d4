"""Voice activity: other sounds are not judged, speech is found at any level, rate and place."""

import numpy as np
import pytest

from benchmarks.speech_activity import other_sounds
from tests.conftest import SAMPLE_RATE, make_speech
from tests.model_folders import write_toy_model_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import Recognizer
from voice_biometrics.inference.audio_input import recording_from_samples

SOUNDS = {name: sounds for name, sounds in other_sounds() if name != "silence"}


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("activity")
    return Recognizer(write_toy_model_folder(folder / "model"), folder / "voices.db")


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_without_speech_is_neither_enrolled_nor_tried(recognizer, name):
    for sound in SOUNDS[name]:
        for level in (1.0, 0.05):
            recording = recording_from_samples(level * sound, SAMPLE_RATE, SAMPLE_RATE, name)
            with pytest.raises(InputError, match=f"{name}.*of speech or more"):
                recognizer.enrol("hum", [recording])
            assert recording.speech_s < 0.4


def speech_s(samples, rate=SAMPLE_RATE):
    return recording_from_samples(samples, rate, rate).speech_s


@pytest.mark.parametrize("level", [1.0, 0.1, 0.003])
def test_speech_is_found_at_any_level(level):
    assert speech_s(level * make_speech(110, 2.0, seed=0)) > 1.8


def test_an_offset_or_rumble_hides_no_speech():
    times_s, voice = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE, make_speech(110, 3.0, seed=0)
    for low in (
        0.3 + 0 * times_s,
        0.3 * (times_s > 1.5),
        0.3 * np.sin(np.pi * times_s),
        0.2 * np.sin(10 * np.pi * times_s),
    ):
        assert speech_s(voice + low) > 2.5
        assert speech_s(0.001 * np.random.default_rng(0).standard_normal(voice.size) + low) < 0.1


def test_speech_is_found_at_another_rate_and_far_into_a_recording():
    assert speech_s(make_speech(110, 2.0, seed=0, sample_rate=8000), 8000) > 1.5
    pause = 1e-4 * np.random.default_rng(0).standard_normal(40 * SAMPLE_RATE)
    assert speech_s(np.r_[pause, make_speech(110, 2.0, seed=0)]) == pytest.approx(1.8, abs=0.4)
    assert speech_s(np.r_[pause, pause]) < 0.1


def test_hum_around_a_word_is_not_counted_as_speech():
    hum = np.tile(SOUNDS["mains hum, 50 Hz"][0], 2)
    hum[SAMPLE_RATE : 3 * SAMPLE_RATE] += make_speech(110, 2.0, seed=0)
    assert speech_s(hum) == pytest.approx(1.8, abs=0.4)
