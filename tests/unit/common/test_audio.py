"""Audio: every format, rate and number of channels becomes one channel at one rate; faults are named."""

import re
import struct

import numpy as np
import pytest
import soundfile

from tests.conftest import make_voice
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.audio_files import read_header
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.audio_input import read_recording


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


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_telephone_codecs_are_checked_by_decoding(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", make_voice(150, 2.0, seed=0)[::2], 8000, subtype=subtype)
    header = read_header(tmp_path / "a.wav", decode=True)
    assert header.fault == "" and header.num_samples == read_audio(tmp_path / "a.wav", 8000).size


def chunk(name: bytes, content: bytes, size: int | None = None, padded: bool = True) -> bytes:
    size = len(content) if size is None else size
    return name + size.to_bytes(4, "little") + content + b"\0" * (padded and len(content) % 2)


SAMPLES = (np.sin(np.arange(16000) / 7) * 16000).astype("<i2")
FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16))
ODD_WAVS = {
    "data of a pipe after a long chunk": (
        b"RIFF", chunk(b"JUNK", bytes(70_000)), FORMAT, chunk(b"data", SAMPLES.tobytes(), 0)
    ),
    "the name of the data in another chunk": (
        b"RIFF", FORMAT, chunk(b"LIST", b"data\0\0\0\0xx"), chunk(b"data", SAMPLES.tobytes(), 0)
    ),
    "data before the format": (b"RIFF", chunk(b"data", SAMPLES.tobytes()), FORMAT),
    "an odd chunk without padding": (
        b"RIFF", FORMAT, chunk(b"LIST", b"abc", padded=False), chunk(b"data", SAMPLES.tobytes())
    ),
    "an odd chunk with padding": (b"RIFF", FORMAT, chunk(b"LIST", b"abc"), chunk(b"data", SAMPLES.tobytes())),
    "RF64 without sizes": (b"RF64", chunk(b"ds64", bytes(28)), FORMAT, chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFFF)),
    "RF64 with impossible sizes": (
        b"RF64", chunk(b"ds64", b"\xff" * 24 + bytes(4)), FORMAT, chunk(b"data", SAMPLES.tobytes(), 0xFFFFFFFF)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_WAVS)
def test_samples_of_a_wav_are_found_wherever_they_are(tmp_path, name):
    tag, *chunks = ODD_WAVS[name]
    (tmp_path / "a.wav").write_bytes(tag + b"\xff\xff\xff\xffWAVE" + b"".join(chunks))
    assert read_header(tmp_path / "a.wav", decode=True)[:3] == (16000, 16000, "")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 16000, 100, 16000), SAMPLES[100:] / np.float32(32768))
    with open(tmp_path / "a.wav", "rb") as stream:
        for source in (tmp_path / "a.wav", stream):
            np.testing.assert_array_equal(read_recording(source, 16000).samples, SAMPLES / np.float32(32768))


def test_a_flac_from_a_pipe_is_counted_and_read_in_parts(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, make_voice(150, 2.0, seed=0), 16000)
    whole = read_audio(path, 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # the number of samples: unknown
    path.write_bytes(content)
    assert read_header(path, decode=True)[:3] == (32000, 16000, "")
    np.testing.assert_array_equal(read_audio(path, 16000), whole)
    np.testing.assert_array_equal(read_audio(path, 16000, 5000, 9000), whole[5000:9000])


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
    header = read_header(path, decode=True)
    assert header.fault == "" and abs(header.num_samples - sound.size) < 1500
    assert read_audio(path, 16000, header.num_samples - 500, header.num_samples).size == 500


@pytest.mark.parametrize("rate, num_channels", [(16000, 1), (44100, 2), (8000, 1)])
def test_an_mp3_that_becomes_quieter_than_its_first_frame_is_read_to_its_end(tmp_path, rate, num_channels):
    """libsndfile guesses the length from the first frame, which is long for noise: half of this recording."""
    path, rng = tmp_path / "a.mp3", np.random.default_rng(0)
    sound = np.r_[0.3 * rng.standard_normal(rate), np.sin(np.arange(5 * rate) / 20) * np.arange(5 * rate) / (10 * rate)]
    soundfile.write(
        path, np.stack([sound] * num_channels, axis=1), rate, bitrate_mode="VARIABLE", compression_level=0.3
    )
    whole, content = read_audio(path, rate), path.read_bytes()
    start = next(place for place in range(4, len(content)) if content[place : place + 2] == content[:2])
    path.write_bytes(b"ID3\3\0\0\0\0\0\x1eXing" + bytes(26) + content[start:])  # and a tag that speaks of Xing
    header = read_header(path, decode=True)
    assert header.fault == "" and abs(header.num_samples - whole.size) < 2500
    found = read_audio(path, rate)
    assert np.abs(found[-rate:]).max() > 0.4 and found.size == header.num_samples
    np.testing.assert_allclose(read_audio(path, rate, 3 * rate, 4 * rate), found[3 * rate : 4 * rate], atol=1e-6)
    recording = read_recording(path, rate)
    assert recording.duration_s == header.num_samples / rate and not any(
        "truncated" in one for one in recording.remarks
    )


@pytest.mark.parametrize(
    "content, named",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00", "ffmpeg"),
        (b"\x1a\x45\xdf\xa3\x01\x00", "ffmpeg"),
        (b"\xef\xbb\xbf<html><body>404", "web page"),
        (b"<!-- moved --><html>", "web page"),
        ("\ufeff<html>".encode("utf-16-le"), "web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\x03\x04" + bytes(range(90)), "archive"),
        (b"#!AMR\n" + bytes(range(90)), "AMR.*ffmpeg"),
        (bytes.fromhex("3026B2758E66CF11A6D9") + bytes(range(90)), "Windows Media.*ffmpeg"),
        (b"\xff\xf1\x50\x80" + bytes(range(90)), "AAC.*ffmpeg"),
        (b"/annex/objects/SHA256E-s123--abc.wav", "git annex get"),
        (bytes(5000), "zero bytes"),
        (b"this is a text\n", "text"),
        (b"", "empty"),
    ],
)
def test_other_content_with_an_audio_name_is_recognised(tmp_path, content, named):
    (tmp_path / "a.wav").write_bytes(content)
    assert re.search(named, read_header(tmp_path / "a.wav").fault)
    with pytest.raises(InputError, match=f"a.wav.*{named}"):
        read_recording(tmp_path / "a.wav", 16000)
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
