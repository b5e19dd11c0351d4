"""Rooms and noises: simulated ones from the seed, recorded ones from folders."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from voice_biometrics.augmentation.rooms_and_noises import (
    Babble,
    ColouredNoise,
    RecordedNoise,
    RecordedRooms,
    SimulatedRooms,
    loop,
)
from voice_biometrics.common.errors import InputError

RATE = 16000
TONES_HZ = (300, 700, 1100, 1900)  # of the speakers s0 to s3


def tone(freq_hz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * freq_hz * np.arange(RATE) / RATE)).astype(np.float32)


def write_tones(folder) -> pd.DataFrame:
    """Write two utterances of a second for each of four speakers, who are known by their tone."""
    voices = []
    for speaker, freq_hz in enumerate(TONES_HZ):
        for number in range(2):
            path = folder / f"s{speaker}_{number}.wav"
            soundfile.write(path, tone(freq_hz), RATE)
            voices.append({"spk_id": f"s{speaker}", "wav": str(path), "start": 0, "stop": RATE, "duration": 1.0})
    return pd.DataFrame(voices)


def test_simulated_rooms_follow_from_the_seed_and_differ(few_sources):
    rooms = SimulatedRooms(RATE, seed=1).responses
    for room, same in zip(rooms, SimulatedRooms(RATE, seed=1).responses, strict=True):
        np.testing.assert_array_equal(room, same)
    assert not np.array_equal(rooms[0], SimulatedRooms(RATE, seed=2).responses[0])
    assert len({room.size for room in rooms}) > 1


def test_a_simulated_room_begins_with_its_direct_sound_and_dies_away(few_sources):
    for room in SimulatedRooms(RATE, seed=1).responses:
        assert room[0] == 1 == np.abs(room).max() and room.dtype == np.float32
        assert 0.05 * RATE < room.size <= 0.5 * RATE
        early, late = np.array_split(room[1:].astype(np.float64) ** 2, 2)
        assert 0.001 < early.sum() < 100 and late.sum() < 0.2 * early.sum()


def test_measured_responses_are_cut_to_their_direct_sound_and_one_channel(tmp_path):
    response = np.zeros((2 * RATE, 2), np.float32)
    response[100] = (-0.5, 0.1)
    response[900] = (0.25, 0.4)
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    room = RecordedRooms(str(tmp_path), RATE).draw(np.random.default_rng(0))
    assert room.size == 0.5 * RATE
    assert np.flatnonzero(room).tolist() == [0, 800] and room[[0, 800]].tolist() == [1, -0.5]


def test_a_measured_response_of_another_rate_is_resampled(tmp_path):
    soundfile.write(tmp_path / "room.wav", np.r_[0.5, np.zeros(3000), 0.4, np.zeros(1000)], 48000, subtype="FLOAT")
    room = RecordedRooms(str(tmp_path), RATE).draw(np.random.default_rng(0))
    assert np.abs(room[1:]).argmax() == pytest.approx(999, abs=2)


def test_a_file_that_is_no_impulse_response_is_told(tmp_path):
    for level, duration_s, found in ((1, 11, "11 s"), (1, 0, "empty"), (0, 1, "silent")):
        (tmp_path / found).mkdir()
        soundfile.write(tmp_path / found / "noise.wav", np.full(duration_s * 8000, float(level)), 8000)
        with pytest.raises(InputError, match=f"noise.wav.*found: {found}.*--rir_folder"):
            RecordedRooms(str(tmp_path / found), RATE).draw(np.random.default_rng(0))


def test_coloured_noise_goes_from_bright_to_dull_and_follows_from_the_seed(few_sources):
    noises = ColouredNoise(RATE, seed=1)
    rng = np.random.default_rng(0)
    drawn = [noises.draw(RATE, rng, "") for _ in range(20)]
    centroids = [np.average(np.arange(8001), weights=np.abs(np.fft.rfft(noise)) ** 2) for noise in drawn]
    assert min(centroids) < 500 and max(centroids) > 3500  # Hz
    again = ColouredNoise(RATE, seed=1).draw(RATE, np.random.default_rng(0), "")
    np.testing.assert_array_equal(drawn[0], again)


def test_babble_is_of_several_other_speakers_and_never_of_the_one_whom_it_disturbs(tmp_path):
    babble = Babble(write_tones(tmp_path), RATE, seed=1)
    heard = set()
    for draw in range(30):
        power = np.abs(np.fft.rfft(babble.draw(RATE, np.random.default_rng(draw), "s1"))) ** 2
        assert power[TONES_HZ[1]] < 1e-6 * power.sum()
        heard |= {freq_hz for freq_hz in TONES_HZ if power[freq_hz] > 0.05 * power.sum()}
    assert heard == set(TONES_HZ) - {TONES_HZ[1]}


def test_the_only_speaker_is_disturbed_by_nobody(tmp_path):
    assert not Babble(write_tones(tmp_path)[:2], RATE, seed=1).draw(RATE, np.random.default_rng(0), "s0").any()


def test_recorded_noise_is_a_random_part_and_leaves_speech_out(tmp_path):
    for name, sound in {"noise/ramp.wav": np.linspace(0.1, 0.9, 4 * RATE), "speech/talk.wav": -np.ones(RATE)}.items():
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, sound, RATE, subtype="FLOAT")
    noises = RecordedNoise(str(tmp_path), RATE)
    starts = []
    for draw in range(30):
        part = noises.draw(RATE, np.random.default_rng(draw), "")
        assert part.shape == (RATE,) and (np.diff(part) > 0).all()
        starts.append(part[0])
    assert min(starts) < 0.2 and 0.6 < max(starts) < 0.71
    assert noises.draw(6 * RATE, np.random.default_rng(0), "").shape == (6 * RATE,)


@pytest.mark.parametrize("source, key", [(RecordedNoise, "noise_folder"), (RecordedRooms, "rir_folder")])
def test_a_folder_that_is_missing_or_empty_is_named(tmp_path, source, key):
    with pytest.raises(InputError, match=f"gone.*--{key}"):
        source(str(tmp_path / "gone"), RATE)
    with pytest.raises(InputError, match=str(tmp_path)):
        source(str(tmp_path), RATE)


def test_a_loop_goes_on_where_it_ended():
    for num_samples in (3, 10, 25):
        part = loop(np.arange(10), num_samples, np.random.default_rng(3))
        assert part.size == num_samples
        assert (np.diff(part) % 10 == 1).all()
