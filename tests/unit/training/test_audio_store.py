"""Decoded audio: what is read back, and when it is decoded again."""

import numpy as np
import pytest
import soundfile

from voice_biometrics.common.audio import read_audio
from voice_biometrics.training import audio_store
from voice_biometrics.training.audio_store import AudioStore


@pytest.fixture
def rows(tmp_path) -> dict:
    """Two utterances of noise; the second is a cut."""
    for name in "ab":
        noise = 0.2 * np.random.default_rng(ord(name)).standard_normal(8000)
        soundfile.write(tmp_path / f"{name}.wav", noise.clip(-1, 1), 16000)
    return {
        "a": {"wav": str(tmp_path / "a.wav"), "start": "0", "stop": "8000"},
        "b": {"wav": str(tmp_path / "b.wav"), "start": "1000", "stop": "5000"},
    }


def test_audio_comes_back_at_every_speed_to_within_a_16_bit_step(tmp_path, rows):
    store = AudioStore(tmp_path, rows, 16000, [1.0, 0.8])
    for name, row in rows.items():
        for number, speed in enumerate([1.0, 0.8]):
            expected = read_audio(row["wav"], 16000, int(row["start"]), int(row["stop"]), speed)
            found = store.read(name, number)
            assert found.dtype == np.float32 and store.num_samples(name, number) == expected.size
            assert np.abs(found - expected.clip(-1, 1)).max() <= 0.51 / 32767


def test_a_part_is_read_and_the_end_is_not_passed(tmp_path, rows):
    store = AudioStore(tmp_path, rows, 16000)
    np.testing.assert_array_equal(store.read("a", 0, 100, 300), store.read("a", 0)[100:300])
    np.testing.assert_array_equal(store.read("a", 0, 7900, 9000), store.read("a", 0)[7900:])


def test_it_is_decoded_once_and_again_for_other_rows(tmp_path, rows, monkeypatch):
    AudioStore(tmp_path, rows, 16000)
    decoded = []
    monkeypatch.setattr(audio_store, "read_audio", lambda *args: decoded.append(args) or read_audio(*args))
    assert AudioStore(tmp_path, rows, 16000).num_samples("b", 0) == 4000
    assert not decoded
    rows["b"]["stop"] = "4000"
    assert AudioStore(tmp_path, rows, 16000).num_samples("b", 0) == 3000
    assert len(decoded) == 2


def test_a_run_of_fewer_utterances_and_speeds_reads_from_the_same_file(tmp_path, rows, monkeypatch):
    whole = AudioStore(tmp_path, rows, 16000, [1.0, 0.8])
    monkeypatch.delattr(audio_store, "read_audio")
    part = AudioStore(tmp_path, {"b": rows["b"]}, 16000, [0.8])
    np.testing.assert_array_equal(part.read("b", 0), whole.read("b", 1))


def test_a_kill_while_decoding_leaves_no_index_of_other_samples(tmp_path, rows, monkeypatch):
    AudioStore(tmp_path, rows, 16000)
    monkeypatch.setattr(audio_store, "write_json", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        AudioStore(tmp_path, rows, 16000, [0.8])
    monkeypatch.undo()
    assert AudioStore(tmp_path, rows, 16000).num_samples("a", 0) == 8000
