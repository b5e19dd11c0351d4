"""Audio that nobody vouches for: read as training reads it, bounded, faults named, doubts said."""

import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr

from tests.conftest import SAMPLE_RATE, make_speech
from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import audio_input
from voice_biometrics.inference.audio_input import read_recording, recording_from_samples

FORMATS = {
    "a.wav": {},
    "a.flac": {},
    "a.ogg": {},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
    "a.aiff": {},
    "a.raw": {"format": "WAV"},  # the name tells nothing
}


def write_voice(path, duration_s=2.0, rate=SAMPLE_RATE, **settings):
    soundfile.write(path, make_speech(120, duration_s, seed=0, sample_rate=rate), rate, **settings)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_as_training_reads_it_from_file_and_stream(tmp_path, name):
    path = write_voice(tmp_path / name, **FORMATS[name])
    recording = read_recording(path, SAMPLE_RATE)
    expected = read_audio(io.BytesIO(path.read_bytes()) if name == "a.raw" else path, SAMPLE_RATE)
    np.testing.assert_allclose(recording.samples, expected, atol=1e-7)  # the MP3 decoder varies in the last bit
    with open(path, "rb") as stream:
        np.testing.assert_allclose(read_recording(stream, SAMPLE_RATE).samples, expected, atol=1e-7)
    assert recording.remarks == () and recording.duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
def test_every_rate_is_brought_to_the_models_as_training_does(tmp_path, rate):
    path = write_voice(tmp_path / "a.wav", rate=rate)
    recording = read_recording(str(path), SAMPLE_RATE)
    np.testing.assert_array_equal(recording.samples, read_audio(path, SAMPLE_RATE))
    assert recording.file_rate == rate and recording.duration_s == 2.0


def test_channels_are_averaged_and_samples_can_be_given(tmp_path):
    both = np.stack([make_speech(120, 1.0, seed=0), make_speech(200, 1.0, seed=1)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, SAMPLE_RATE, subtype="FLOAT")
    recording = read_recording(tmp_path / "a.wav", SAMPLE_RATE)
    np.testing.assert_array_equal(recording.samples, both.mean(axis=1))
    given = recording_from_samples(both, SAMPLE_RATE, SAMPLE_RATE)
    np.testing.assert_array_equal(given.samples, recording.samples)
    assert (given.num_channels, given.name) == (2, "the recording")


def test_channels_that_cancel_each_other_and_a_silent_channel_leave_no_remark():
    voice = make_speech(150, 3.0, seed=0)
    expected = recording_from_samples(voice, SAMPLE_RATE, SAMPLE_RATE)
    inverted = recording_from_samples(np.stack([voice, -voice], axis=1), SAMPLE_RATE, SAMPLE_RATE)
    np.testing.assert_array_equal(inverted.samples, expected.samples)
    one_sided = recording_from_samples(np.stack([voice, 0 * voice], axis=1), SAMPLE_RATE, SAMPLE_RATE)
    assert not any("clipped" in remark for remark in one_sided.remarks)


@pytest.mark.parametrize("content, named", [(b"version https://git-lfs", "git lfs"), (b"0000ftypM4A ", "ffmpeg")])
def test_other_content_with_an_audio_name_is_recognised(tmp_path, content, named):
    (tmp_path / "a.wav").write_bytes(content)
    for source in (tmp_path / "a.wav", io.BytesIO(content)):
        with pytest.raises(InputError, match=named):
            read_recording(source, SAMPLE_RATE)


def test_what_is_no_audio_file_is_told_at_once(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty.wav").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), SAMPLE_RATE)
    for name, told in {
        "gone.wav": r"could not be read \(No such file or directory\); check the path",
        "": "expected an audio file, found a folder, pipe or device",
        "pipe.wav": "expected an audio file, found a folder, pipe or device",
        "text.wav": "expected audio that libsndfile reads",
        "empty.wav": "expected audio that libsndfile reads",
        "nothing.wav": "expected speech, found no samples",
        "zero\0byte.wav": "could not be read",
    }.items():
        with pytest.raises(InputError, match=told):
            read_recording(f"{tmp_path}/{name}", SAMPLE_RATE)
    with pytest.raises(InputError, match="/dev/zero: expected an audio file"):
        read_recording("/dev/zero", SAMPLE_RATE)
    for stream, told in ((io.BytesIO(b""), "expected audio"), (BrokenStream(), r"could not be read \(Input/output")):
        with pytest.raises(InputError, match=f"the stream: {told}"):
            read_recording(stream, SAMPLE_RATE)


class BrokenStream(io.RawIOBase):
    def read(self, size=-1):
        raise OSError(errno.EIO, "Input/output error")


def test_samples_that_are_not_finite_are_refused(tmp_path):
    samples = np.repeat(make_speech(120, 1.0, seed=0)[:, None], 2, axis=1)
    for value in (np.nan, -np.inf, 3e38):  # 3e38 twice overflows only when the channels are added
        samples[100] = value
        soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
        with pytest.raises(InputError, match="a.wav: expected finite samples"):
            read_recording(tmp_path / "a.wav", SAMPLE_RATE)


def test_silence_an_offset_and_noise_of_the_last_bit_are_no_speech():
    for level in (0.0, 0.25, 2.0**-16):
        samples = np.full(SAMPLE_RATE, level, np.float32)
        samples[::2] += 2.0**-16
        with pytest.raises(InputError, match="the recording: expected speech, found silence"):
            recording_from_samples(samples, SAMPLE_RATE, SAMPLE_RATE)


def test_too_many_channels_and_odd_rates_are_refused(tmp_path):
    soundfile.write(tmp_path / "many.wav", np.full((100, 17), 0.1), SAMPLE_RATE)
    with pytest.raises(InputError, match="many.wav: expected 1 to 16 channels, found 17"):
        read_recording(tmp_path / "many.wav", SAMPLE_RATE)
    for rate in (1, 3999, 384_001, 2**31 - 1):
        soundfile.write(tmp_path / "rate.wav", np.full(100, 0.1), rate)
        with pytest.raises(InputError, match=f"rate.wav: expected 4,000 to 384,000 Hz, found {rate:,}"):
            read_recording(tmp_path / "rate.wav", SAMPLE_RATE)


def test_long_recordings_are_refused_by_their_header_or_once_they_are_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_input, "MAX_DURATION_S", 3.0)
    path = write_voice(tmp_path / "a.flac", duration_s=3.0)
    assert read_recording(path, SAMPLE_RATE).duration_s == 3.0
    write_voice(path, duration_s=3.001)
    with pytest.raises(InputError, match="a.flac: expected at most 3 s"):
        read_recording(path, SAMPLE_RATE)
    claim_flac_samples(path, 0)  # an unknown length, as of a FLAC that was piped
    with pytest.raises(InputError, match="a.flac: expected at most 3 s"):
        read_recording(path, SAMPLE_RATE)


def claim_flac_samples(path, num_samples):
    """Write another total into the header of a FLAC file."""
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | num_samples >> 32
    content[22:26] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)


def test_a_flac_without_a_length_is_read_whole_and_one_that_ends_early_with_a_doubt(tmp_path):
    path = write_voice(tmp_path / "a.flac")
    expected = read_audio(path, SAMPLE_RATE)
    claim_flac_samples(path, 0)
    recording = read_recording(path, SAMPLE_RATE)
    np.testing.assert_array_equal(recording.samples, expected)
    assert recording.remarks == ()
    claim_flac_samples(path, 3 * SAMPLE_RATE)
    (truncated,) = read_recording(path, SAMPLE_RATE).remarks
    assert "3.0 s" in truncated and "2.0 s" in truncated


HUGE_CLAIMS = """
import resource, sys
from voice_biometrics.inference.audio_input import read_recording
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        print(len(read_recording(path, 16000).samples))
    except ValueError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_headers_that_claim_ten_gigabytes_cost_no_memory(tmp_path):
    flac, wav = write_voice(tmp_path / "a.flac"), write_voice(tmp_path / "a.wav")
    claim_flac_samples(flac, 5 * 10**9)
    content = bytearray(wav.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # what a program writes that pipes a WAV
    wav.write_bytes(content)
    command = [sys.executable, "-c", HUGE_CLAIMS, str(flac), str(wav)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    of_flac, of_wav, kib = done.stdout.splitlines()
    assert "a.flac: expected at most 300 s" in of_flac and "312,500 s" in of_flac
    assert of_wav == "32000" and int(kib) < 50_000


def test_a_stream_is_read_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(audio_input, "MAX_STREAM_BYTES", 2**20)
    with pytest.raises(InputError, match="/dev/zero: expected at most 1 MiB"), open("/dev/zero", "rb") as endless:
        read_recording(endless, SAMPLE_RATE)


def remarks_of(samples, rate=SAMPLE_RATE):
    return recording_from_samples(samples, rate, SAMPLE_RATE).remarks


def test_what_makes_an_answer_less_reliable_is_said():
    voice = make_speech(120, 2.0, seed=0)
    telephone = soxr.resample(voice, SAMPLE_RATE, 8000)
    assert remarks_of(voice) == ()
    *_, clipped = remarks_of(np.clip(4 * voice, -0.5, 0.5))
    (quiet,) = remarks_of(voice / 1000)
    (narrow,) = remarks_of(soxr.resample(telephone, 8000, SAMPLE_RATE))
    assert clipped.startswith("clipped") and quiet.startswith("very quiet") and narrow.startswith("narrow band")
    assert "8,000 Hz" in remarks_of(telephone, 8000)[-1]


def test_pauses_are_not_counted_as_speech():
    voice, pause = make_speech(120, 2.0, seed=0), 1e-4 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE)
    recording = recording_from_samples(np.r_[pause, voice].astype(np.float32), SAMPLE_RATE, SAMPLE_RATE)
    assert recording.duration_s == 5.0 and recording.speech_s == pytest.approx(2.0, abs=0.1)


def test_two_people_on_two_channels_are_a_remark_and_one_channel_can_be_taken(tmp_path):
    talks = np.repeat(np.random.default_rng(0).random(16) > 0.5, 4000)
    both = np.stack([make_speech(110, 4.0, seed=0) * talks, make_speech(190, 4.0, seed=1) * ~talks], axis=1)
    soundfile.write(tmp_path / "two.wav", both, SAMPLE_RATE, subtype="FLOAT")
    (remark,) = read_recording(tmp_path / "two.wav", SAMPLE_RATE).remarks
    assert "choose one channel" in remark
    second = read_recording(tmp_path / "two.wav", SAMPLE_RATE, channel=2)
    np.testing.assert_array_equal(second.samples, both[:, 1])
    assert second.remarks == ()
    for channel in (-1, 3):
        with pytest.raises(InputError, match=f"two.wav: expected channel {channel}"):
            read_recording(tmp_path / "two.wav", SAMPLE_RATE, channel=channel)
    mono = write_voice(tmp_path / "a.wav")
    np.testing.assert_array_equal(read_recording(mono, SAMPLE_RATE, 2).samples, read_audio(mono, SAMPLE_RATE))


def test_one_person_at_two_microphones_is_no_remark():
    voice, rng = make_speech(110, 4.0, seed=0), np.random.default_rng(0)
    late = 0.3 * np.r_[np.zeros(400), voice[:-400]] + 0.005 * rng.standard_normal(voice.size)
    noise = 0.001 * rng.standard_normal(voice.size)
    for other in (late, -voice, 0 * voice):
        assert remarks_of(np.stack([voice + noise, other], axis=1)) == ()


@pytest.mark.parametrize("level, is_told", [(0.0, False), (0.002, False), (0.04, True)])
def test_an_offset_and_rumble_below_the_voice_are_a_remark(level, is_told):
    voice, time_s = make_speech(110, 2.0, seed=0), np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for sound in (level, level * np.sin(2 * np.pi * 1.5 * time_s), level * np.sin(2 * np.pi * 25 * time_s)):
        assert any("below the voice" in remark for remark in remarks_of(voice + sound)) == is_told
