"""Audio: every format, rate and number of channels becomes one channel at one rate; faults are named."""

import numpy as np
import pytest
import soundfile

from tests.conftest import make_voice
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.audio_files import read_header
from voice_biometrics.common.errors import InputError


@pytest.mark.parametrize("suffix, tolerance", [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.15), (".mp3", 0.15)])
def test_each_format_gives_the_sound_that_was_written(tmp_path, suffix, tolerance):
    sound = make_voice(150, 1.0, seed=0)
    soundfile.write(tmp_path / f"a{suffix}", sound, 16000)
    read = read_audio(tmp_path / f"a{suffix}", 16000)
    assert read.dtype == np.float32 and abs(read.size - 16000) < 2500
    error = np.abs(np.correlate(read, sound, "valid")).max() / np.dot(sound, sound) - 1
    assert abs(error) < tolerance


def test_opus_is_read(tmp_path):
    soundfile.write(tmp_path / "a.opus", make_voice(150, 1.0, seed=0), 16000, format="OGG", subtype="OPUS")
    assert abs(read_audio(tmp_path / "a.opus", 16000).size - 16000) < 2500


def test_channels_are_averaged(tmp_path):
    left, right = make_voice(150, 0.5, seed=0), make_voice(200, 0.5, seed=1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_tone_keeps_its_pitch_when_it_is_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    read = read_audio(tmp_path / "a.wav", 16000)
    assert abs(read.size - 16000) <= 1
    assert np.abs(np.fft.rfft(read)).argmax() == pytest.approx(440, abs=1)


def test_a_part_equals_the_slice_of_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.flac", make_voice(150, 1.0, seed=0), 16000)
    whole = read_audio(tmp_path / "a.flac", 16000)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac", 16000, 4000, 9000), whole[4000:9000])


def test_faults_are_named(tmp_path):
    soundfile.write(tmp_path / "zero.wav", np.zeros(1600), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(1600, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.full(1600, 0.1), 16000)
    with pytest.raises(InputError, match="zero.wav.*only zeros"):
        read_audio(tmp_path / "zero.wav", 16000)
    with pytest.raises(InputError, match="nan.wav.*NaN"):
        read_audio(tmp_path / "nan.wav", 16000)
    with pytest.raises(InputError, match="text.wav.*readable audio"):
        read_audio(tmp_path / "text.wav", 16000)
    with pytest.raises(InputError, match="expected 3200 samples, found 1600"):
        read_audio(tmp_path / "short.wav", 16000, 0, 3200)
    with pytest.raises(InputError, match="gone.wav"):
        read_audio(tmp_path / "gone.wav", 16000)


def test_a_silent_part_of_a_file_that_speaks_elsewhere_is_fine(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.r_[np.zeros(1600), np.full(1600, 0.1)], 16000)
    assert not read_audio(tmp_path / "a.wav", 16000, 0, 1000).any()


def test_short_speech_is_repeated_and_long_speech_left_alone():
    np.testing.assert_array_equal(repeat_to(np.array([1.0, 2, 3]), 8), [1, 2, 3, 1, 2, 3, 1, 2])
    np.testing.assert_array_equal(repeat_to(np.array([1.0, 2, 3]), 2), [1, 2, 3])


def patched_wav(path, size: int, cut: int | None = None):
    """Write 1 s of noise as WAV whose data chunk claims ``size`` bytes; return the path."""
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    path.write_bytes(content[:cut])
    return path


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x80000000, 0, 32000 + 44])
def test_an_impossible_wav_size_is_read_to_the_end(tmp_path, size):
    path = patched_wav(tmp_path / "a.wav", size)
    assert read_header(path, decode=True)[:3] == (16000, 16000, "")
    assert read_audio(path, 16000, 0, 16000).size == 16000
    assert read_audio(path, 16000, 100, 300).size == 200


def test_a_wav_that_lost_its_end_is_truncated(tmp_path):
    assert "truncated" in read_header(patched_wav(tmp_path / "a.wav", 32000, cut=20000)).fault


def test_telephone_gsm_is_read_in_parts(tmp_path):
    soundfile.write(tmp_path / "a.wav", make_voice(150, 2.0, seed=0)[::2], 8000, subtype="GSM610")
    whole = read_audio(tmp_path / "a.wav", 8000)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 8000, 1000, 3000), whole[1000:3000])


def test_channels_that_cancel_each_other_are_not_averaged(tmp_path):
    voice = make_voice(150, 0.5, seed=0)
    soundfile.write(tmp_path / "a.wav", np.stack([voice, -voice], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 16000), voice, atol=1e-6)


def test_an_mp3_without_a_length_in_its_header_is_counted(tmp_path):
    path = tmp_path / "a.mp3"
    sound = np.r_[make_voice(150, 3.0, seed=0), np.zeros(48000)]
    soundfile.write(path, sound, 16000, bitrate_mode="VARIABLE", compression_level=0.3)
    content = path.read_bytes()
    start = next(place for place in range(1, len(content)) if content[place : place + 2] == content[:2])
    path.write_bytes(content[start:])  # the first frame holds the length
    header = read_header(path)
    assert header.num_samples == len(soundfile.read(path)[0])
    assert read_audio(path, 16000, header.num_samples - 500, header.num_samples).size == 500


@pytest.mark.parametrize(
    "content, named",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00", "ffmpeg"),
        (b"\x1a\x45\xdf\xa3\x01\x00", "ffmpeg"),
        (b"", "empty"),
    ],
)
def test_other_content_with_an_audio_name_is_recognised(tmp_path, content, named):
    (tmp_path / "a.wav").write_bytes(content)
    assert named in read_header(tmp_path / "a.wav").fault
    with pytest.raises(InputError, match=f"a.wav.*{named}"):
        read_audio(tmp_path / "a.wav", 16000)


def test_a_silent_part_of_a_wav_without_a_size_is_fine(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.r_[np.zeros(1600), np.full(1600, 0.1)], 16000)
    content = bytearray(path.read_bytes())
    content[40:44] = bytes(4)
    path.write_bytes(content)
    assert not read_audio(path, 16000, 0, 1000).any()
    assert read_audio(path, 16000, 1600, 3200).all()
