"""Demo voices: who they are, what is written, and what happens to a folder that is half done or not ours."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch  # noqa: F401  espeak-ng must start in a process that has it loaded

from data_prep.corpora import demo_voices
from data_prep.corpora.demo import espeak
from data_prep.corpora.demo.channel import SAMPLE_RATE, change_tract_length, record_speech
from data_prep.corpora.demo.espeak import Espeak
from data_prep.corpora.demo.voices import make_voices, plan_utterances
from data_prep.corpora.demo_voices import find_or_synthesise, find_utterances
from data_prep.corpus import Corpus
from voice_biometrics.common.errors import InputError

FEW = {"train": make_voices("train")[1:3], "test": make_voices("test")[:1]}  # alex-1, alicia-1; andy-1
VOICE = {"rate_wpm": 170, "pitch": 50, "pitch_range": 50}


def small_plan(num_utterances: int = 2) -> dict:
    return {part: {voice: plan_utterances(voice, num_utterances) for voice in voices} for part, voices in FEW.items()}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def count_syntheses(monkeypatch) -> list[str]:
    """Return a list that grows by each sentence that is spoken."""
    spoken, synthesise = [], Espeak.synthesise

    def counted(self, text, **settings):
        spoken.append(text)
        return synthesise(self, text, **settings)

    monkeypatch.setattr(Espeak, "synthesise", counted)
    return spoken


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Corpus:
    return find_or_synthesise(tmp_path_factory.mktemp("demo"), small_plan())


# the voices


def test_there_are_48_training_and_16_test_voices_of_both_genders_with_twenty_utterances_each():
    train, test = make_voices("train"), make_voices("test")
    assert (len(train), len(test)) == (48, 16)
    for voices in (train, test):
        assert sum(voice.gender == "f" for voice in voices) == len(voices) / 2
        assert all(len(plan_utterances(voice)) == 20 for voice in voices)


def test_training_and_test_voices_share_neither_name_nor_variant():
    train, test = make_voices("train"), make_voices("test")
    assert not {voice.spk_id for voice in train} & {voice.spk_id for voice in test}
    assert not {voice.variant for voice in train} & {voice.variant for voice in test}


def test_no_voice_says_a_sentence_twice_and_its_ids_are_sorted():
    for voice in make_voices("train") + make_voices("test"):
        utterances = plan_utterances(voice)
        assert len({utterance.text for utterance in utterances}) == len(utterances)
        assert [utterance.utt_id for utterance in utterances] == sorted({utterance.utt_id for utterance in utterances})


def test_a_shorter_plan_is_the_beginning_of_a_longer_one():
    voice = make_voices("test")[3]
    assert plan_utterances(voice, 5) == plan_utterances(voice, 20)[:5]


# espeak-ng


def test_an_unknown_variant_or_language_raises_instead_of_speaking_with_another_voice():
    for voice, named in (
        ("en-us+F1", "F1"),
        ("xx+f1", "xx"),
    ):
        language, variant = voice.split("+")
        with Espeak() as engine:
            engine.synthesise("Good morning.", language="de", variant="m3", **VOICE)
            with pytest.raises(InputError, match=named):
                engine.synthesise("Good morning.", language=language, variant=variant, **VOICE)


def test_a_voice_sounds_the_same_whatever_was_said_before():
    def speak() -> list[np.ndarray]:
        with Espeak() as engine:
            return [engine.synthesise(text, language="fr", variant="f5", **VOICE) for text in ("Bonjour.", "Merci.")]

    first = speak()
    with Espeak() as other:
        other.synthesise("Something else altogether, in between.", language="en-us", variant="m3", **VOICE)
        second = speak()
    assert np.abs(first[0]).max() > 1000
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="reaches into the C library of Unix")
def test_no_voice_depends_on_the_random_numbers_of_the_c_library():
    def speak_all(c_seed: int) -> list[bytes]:
        ctypes.CDLL(None).srand(c_seed)
        with Espeak() as engine:
            return [
                engine.synthesise("Una casa.", language="es", variant=voice.variant, **VOICE).tobytes()
                for voice in make_voices("train") + make_voices("test")
            ]

    assert speak_all(1) == speak_all(77)


def test_data_in_a_very_long_path_is_found(tmp_path, monkeypatch):
    library_path, data_path = espeak._installed_paths()
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(data_path)
    monkeypatch.setattr(espeak, "_installed_paths", lambda: (library_path, deep / "espeak-ng-data"))
    with Espeak() as engine:
        assert engine.synthesise("Good morning.", language="en-us", variant="f1", **VOICE).size > 0


def test_a_missing_package_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="espeakng-loader.*pip install -r requirements.txt"):
        Espeak()


def test_a_library_that_does_not_load_is_said(tmp_path, monkeypatch):
    _, data_path = espeak._installed_paths()
    (tmp_path / "libespeak-ng.so").write_text("not a library")
    monkeypatch.setattr(espeak, "_installed_paths", lambda: (tmp_path / "libespeak-ng.so", data_path))
    with pytest.raises(InputError, match="does not load"):
        Espeak()


# the channel


def test_a_longer_vocal_tract_lowers_the_pitch_and_lasts_longer_in_proportion():
    time_s = np.arange(22050) / 22050
    tone = 1000 * np.sin(2 * np.pi * 800 * time_s)
    heard = change_tract_length(tone, 22050, 1.05)
    peak_hz = np.argmax(np.abs(np.fft.rfft(heard))) * SAMPLE_RATE / heard.size
    assert peak_hz == pytest.approx(800 / 1.05, abs=2)
    assert heard.size == pytest.approx(1.05 * SAMPLE_RATE, abs=2)


def test_two_recordings_of_one_sentence_differ_in_level_and_noise_and_repeat_with_their_seed():
    speech = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    one, again, other = (record_speech(speech, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert np.abs(one).max() != np.abs(other).max()
    assert np.abs(one).max() < 32767 * 10 ** (-3 / 20) + 1  # 3 dB below full scale


# the folder


def test_the_corpus_lists_sorted_unique_utterances_of_existing_files_with_their_metadata(made):
    assert [utterance.utt_id for utterance in made.test] == ["andy-1/01", "andy-1/02"]
    assert [utterance.utt_id for utterance in made.train] == ["alex-1/01", "alex-1/02", "alicia-1/01", "alicia-1/02"]
    assert made.trial_list is None
    for utterance in made.train + made.test:
        assert utterance.utt_id.startswith(f"{utterance.spk_id}/")
        assert (made.root / utterance.path).is_file()
        assert set(utterance.metadata) == {"gender", "language"}
    assert {utterance.spk_id: utterance.metadata["gender"] for utterance in made.train} == {
        "alex-1": "m",
        "alicia-1": "f",
    }
    assert len({utterance.metadata["language"] for utterance in made.test}) == 2


def test_audio_is_16_khz_mono_16_bit_audible_and_not_clipped(made):
    for utterance in made.train + made.test:
        header = soundfile.info(made.root / utterance.path)
        assert (header.samplerate, header.channels, header.subtype) == (16000, 1, "PCM_16")
        assert 1 < header.duration < 7
        samples, _ = soundfile.read(made.root / utterance.path)
        assert 0.05 < np.abs(samples).max() < 0.9
        assert np.std(samples) > 0.005


def test_two_syntheses_write_identical_bytes(made, tmp_path):
    find_or_synthesise(tmp_path / "again", small_plan())
    assert bytes_of(tmp_path / "again") == bytes_of(made.root)


def test_a_complete_corpus_is_listed_without_synthesis_even_without_the_package(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert find_or_synthesise(made.root, small_plan()) == made


def test_a_killed_synthesis_is_completed_to_the_same_bytes_without_redoing_whole_voices(made, tmp_path, monkeypatch):
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:  # in the second voice
            raise KeyboardInterrupt
        return record_speech(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo_voices, "record_speech", killed)
        find_or_synthesise(tmp_path, small_plan())
    assert (tmp_path / "train/alex-1/02.wav").is_file() and not (tmp_path / "train/alicia-1").exists()
    spoken = count_syntheses(monkeypatch)
    assert find_or_synthesise(tmp_path, small_plan()).train == made.train
    assert len(spoken) == 4  # two voices of the three
    assert bytes_of(tmp_path) == bytes_of(made.root)


def test_a_corpus_of_another_plan_is_replaced(made, tmp_path):
    find_or_synthesise(tmp_path, small_plan(num_utterances=1))
    (tmp_path / "train/alex-1").rename(tmp_path / "train/gone-1")
    find_or_synthesise(tmp_path, small_plan())
    assert bytes_of(tmp_path) == bytes_of(made.root)


@pytest.mark.parametrize("foreign", ["thesis.txt", "train/alex-1/01.wav"])
def test_a_folder_with_other_content_is_refused_and_left_alone(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(InputError, match=f"found {foreign.partition('/')[0]};"):
        find_or_synthesise(tmp_path, small_plan())
    assert bytes_of(tmp_path) == {foreign: b"mine"}


def test_a_file_of_the_user_within_an_older_demo_corpus_stops_its_replacement(tmp_path):
    find_or_synthesise(tmp_path, small_plan(num_utterances=1))
    (tmp_path / "train/alex-1/notes.txt").write_text("mine")
    before = bytes_of(tmp_path)
    with pytest.raises(InputError, match="notes.txt"):
        find_or_synthesise(tmp_path, small_plan())
    assert bytes_of(tmp_path) == before


def test_a_trial_list_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="trial_list"):
        find_utterances(tmp_path / "new", "veri_test2.txt")
    assert not (tmp_path / "new").exists()
