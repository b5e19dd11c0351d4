"""Headers: formats, rates, and files that only look like audio."""

import numpy as np
import pytest
import soundfile

from voice_biometrics.common import audio_files
from voice_biometrics.common.audio_files import list_audio, read_header, read_headers


@pytest.mark.parametrize("suffix, rate", [(".wav", 8000), (".flac", 44100), (".ogg", 16000), (".mp3", 16000)])
def test_length_and_rate_of_each_format(tmp_path, suffix, rate):
    soundfile.write(tmp_path / f"a{suffix}", np.full((rate, 2), 0.1), rate)
    header = read_header(tmp_path / f"a{suffix}")
    assert header.sample_rate == rate and header.fault == ""
    assert abs(header.num_samples - rate) < 2500  # MP3 is padded to whole frames


def cut(path, share: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_a_truncated_file_is_at_fault(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    cut(path, 0.5)
    assert "truncated" in read_header(path).fault


def test_empty_foreign_and_missing_files_are_at_fault(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    faults = [read_header(tmp_path / name).fault for name in ("empty.wav", "text.wav", "gone.wav", "nothing.wav")]
    assert all(faults) and "no samples" in faults[3]


def test_a_wav_that_was_streamed_without_a_known_length_is_sound(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1600, 0.1), 16000)
    content = bytearray(path.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"  # the data chunk's size
    path.write_bytes(content)
    assert read_header(path)[:3] == (1600, 16000, "")


def test_silence_and_nan_are_found_by_decoding_only(tmp_path):
    soundfile.write(tmp_path / "zero.wav", np.zeros(1600), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(1600, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "good.wav", np.full(1600, 0.1), 16000)
    names = ("zero.wav", "nan.wav", "good.wav")
    assert [header.fault for header in read_headers(tmp_path, names, "test")] == ["", "", ""]
    faults = [header.fault for header in read_headers(tmp_path, names, "test", decode=True)]
    assert "zero" in faults[0] and "NaN" in faults[1] and faults[2] == ""


def test_headers_come_in_the_order_of_the_names_from_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_files, "BLOCK", 2 * audio_files.CHUNK)
    names = [f"{number}.wav" for number in range(600)]
    for number, name in enumerate(names):
        soundfile.write(tmp_path / name, np.full(10 + number, 0.1), 16000)
    assert [header.num_samples for header in read_headers(tmp_path, names, "test")] == list(range(10, 610))


def write_tone(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(160, 0.1), 16000)


def test_hidden_folders_and_links_into_the_corpus_are_skipped_and_links_outside_followed(tmp_path, caplog):
    root = tmp_path / "voices"
    for name in ("s0/a.wav", "s1/b.wav", ".git/c.wav", "s0/.cache/d.wav"):
        write_tone(root / name)
    write_tone(tmp_path / "elsewhere" / "e.wav")
    (root / "s0" / "all").symlink_to(root)
    (root / "s2").symlink_to(tmp_path / "elsewhere")
    (root / "s3").symlink_to(root / "s1")
    assert list_audio(root) == ["s0/a.wav", "s1/b.wav", "s2/e.wav"]
    assert ".git" in caplog.text and "s3" in caplog.text


def test_recordings_in_a_format_that_is_not_read_are_counted(tmp_path, caplog):
    for name in ("a.wav", "b.m4a", "c.M4A"):
        write_tone(tmp_path / "x.wav")
        (tmp_path / "x.wav").rename(tmp_path / name)
    assert list_audio(tmp_path) == ["a.wav"]
    assert "2 files" in caplog.text and "ffmpeg" in caplog.text


def test_a_dangling_link_is_named_as_such(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "gone.wav")
    assert list_audio(tmp_path) == ["a.wav"]
    assert "link" in read_header(tmp_path / "a.wav").fault


def test_a_folder_outside_counts_once_whatever_links_to_it(tmp_path, caplog):
    root = tmp_path / "voices"
    for path in (root / "s0" / "a.wav", tmp_path / "elsewhere" / "e.wav"):
        write_tone(path)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    for name in ("s1", "s2"):
        (root / name).symlink_to(tmp_path / "elsewhere")
    assert list_audio(root) == ["s0/a.wav", "s1/e.wav"]
    assert "s2" in caplog.text
