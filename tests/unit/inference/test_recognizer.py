"""The recogniser: compares, enrols, verifies and identifies, says its doubts, and refuses what it cannot judge."""

import functools
import io

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, make_speech
from tests.model_folders import write_toy_model_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import Recognizer
from voice_biometrics.inference.audio_input import recording_from_samples
from voice_biometrics.inference.store import Store

PITCH_HZ = {"anna": 110, "bert": 190, "carl": 145}


@functools.cache
def speech(name: str, seed: int, duration_s: float = 2.0):
    """A recording of a voice."""
    samples = make_speech(PITCH_HZ[name], duration_s, seed)
    return recording_from_samples(samples, SAMPLE_RATE, SAMPLE_RATE, name=f"{name} {seed}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_toy_model_folder(tmp_path_factory.mktemp("recognizer") / "model")


@pytest.fixture
def recognizer(model, tmp_path):
    return Recognizer(model, tmp_path / "voices.db")


def test_one_voice_is_accepted_and_two_are_not_in_either_order(recognizer):
    same, other = (recognizer.compare(speech("anna", 0), speech(name, 1)) for name in ("anna", "bert"))
    assert same.is_accepted and not other.is_accepted and same.score > other.score
    assert same.llr == pytest.approx(20.0 * same.score - 14.0) and same.llr >= same.point.threshold > other.llr
    assert same.doubts == () and same.name is None
    assert same.to_dict()["decision"] == "accepted" and other.to_dict()["decision"] == "rejected"
    assert recognizer.compare(speech("bert", 1), speech("anna", 0)).score == pytest.approx(other.score, abs=1e-6)


def test_the_threshold_decides_and_belongs_to_the_use(model):
    one, two = speech("anna", 0), speech("anna", 1)
    llr = Recognizer(model).compare(one, two).llr
    for choice in ({}, {"use": "smart_speaker"}, {"use": "door"}, {"max_far": 0.05}, {"max_far": 0.001}):
        verdict = Recognizer(model, **choice).compare(one, two)
        assert verdict.llr == llr and verdict.is_accepted == (llr >= verdict.point.threshold)
    assert [Recognizer(model, **choice).point.threshold for choice in ({}, {"use": "door"})] == [2.0, 4.0]


def test_a_llr_at_the_threshold_is_accepted(model, monkeypatch):
    recognizer = Recognizer(model)
    for llr, is_accepted in ((2.0, True), (np.nextafter(2.0, 0.0), False)):
        monkeypatch.setattr(recognizer, "_llr", lambda score, llr=llr: float(llr))
        assert recognizer.compare(speech("anna", 0), speech("anna", 1)).is_accepted == is_accepted


def test_an_enrolled_voice_is_verified_and_another_is_not(recognizer, model):
    done = recognizer.enrol("anna", [speech("anna", seed) for seed in range(3)])
    assert (done.num_recordings, done.disagreeing, done.doubts) == (3, (), ())
    assert done.speech_s == pytest.approx(5.7, abs=0.1)
    elsewhere = Recognizer(model, recognizer.store_path)
    assert elsewhere.verify("anna", speech("anna", 9)).is_accepted
    verdict = elsewhere.verify("anna", speech("bert", 9))
    assert not verdict.is_accepted and verdict.name == "anna"


def test_added_recordings_make_the_voice_that_all_together_make(recognizer):
    recognizer.enrol("together", [speech("anna", seed) for seed in range(4)])
    recognizer.enrol("apart", [speech("anna", 0)])
    assert recognizer.enrol("apart", [speech("anna", seed) for seed in (1, 2, 3)], add=True).num_recordings == 4
    scores = [recognizer.verify(name, speech("anna", 9)).score for name in ("together", "apart")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_the_odd_one_out_is_told_and_enrolled_with_the_others(recognizer):
    recordings = [speech("anna", 0), speech("bert", 1), speech("anna", 2), speech("anna", 3)]
    done = recognizer.enrol("anna", recordings)
    assert done.disagreeing == ("bert 1",) and done.num_recordings == 4
    added = recognizer.enrol("anna", [speech("anna", 4), speech("bert", 5)], add=True)
    assert added.disagreeing == ("bert 5",) and added.num_recordings == 6


def test_identification_finds_the_voice_or_nobody(recognizer):
    for name in ("anna", "bert"):
        recognizer.enrol(name, [speech(name, seed) for seed in range(3)])
    found = recognizer.identify(speech("bert", 9))
    assert found.is_accepted and found.name == "bert"
    assert [one.name for one in found.candidates] == ["bert", "anna"]
    assert [one.is_accepted for one in found.candidates] == [True, False]
    assert found.point.num_voices == 2 and found.point.threshold == 4.0  # half of 1 % each
    nobody = recognizer.identify(speech("carl", 9))
    assert not nobody.is_accepted and nobody.name is None and len(nobody.candidates) == 2


def test_identification_sees_what_others_enrol_and_forget(recognizer, model):
    recognizer.enrol("anna", [speech("anna", 0)])
    other = Recognizer(model, recognizer.store_path)
    assert other.identify(speech("bert", 9)).name is None
    recognizer.enrol("bert", [speech("bert", 0)])
    assert other.identify(speech("bert", 9)).name == "bert"
    recognizer.forget("bert")
    assert other.identify(speech("bert", 9)).name is None
    assert other.forget("anna") and recognizer.voices() == []
    with pytest.raises(InputError, match="voices.db: no voice is enrolled"):
        other.identify(speech("anna", 9))


def test_voices_of_another_model_are_refused_everywhere(recognizer, model, tmp_path):
    recognizer.enrol("anna", [speech("anna", 0)])
    before = Store(recognizer.store_path).get("anna").to_bytes()
    fingerprints = {"fp32": "12" * 32, "int8": "34" * 32}
    newer = write_toy_model_folder(tmp_path / "newer", fingerprints)
    for other in (Recognizer(newer, recognizer.store_path), Recognizer(model, recognizer.store_path, precision="int8")):
        told = "anna was enrolled with model abababababab.*forget the voice"
        with pytest.raises(InputError, match=told):
            other.verify("anna", speech("anna", 1))
        with pytest.raises(InputError, match=told):
            other.identify(speech("anna", 1))
        with pytest.raises(InputError, match=told):
            other.enrol("anna", [speech("anna", 1)], add=True)
    assert Store(recognizer.store_path).get("anna").to_bytes() == before


def test_an_encrypted_store_answers_the_same(recognizer, model, tmp_path):
    key = tmp_path / "voices.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    sealed = Recognizer(model, tmp_path / "sealed.db", key_file=key)
    for one in (recognizer, sealed):
        one.enrol("anna", [speech("anna", seed) for seed in range(3)])
    probe = speech("anna", 9)
    assert sealed.verify("anna", probe).score == recognizer.verify("anna", probe).score
    assert sealed.identify(probe).to_dict() == recognizer.identify(probe).to_dict()


def test_short_speech_and_remarks_on_the_sound_are_doubts(recognizer):
    clipped = np.clip(4 * make_speech(110, 1.2, 0), -0.5, 0.5)
    recording = recording_from_samples(clipped, SAMPLE_RATE, SAMPLE_RATE, name="a")
    first, *others = recognizer.compare(recording, speech("anna", 1)).doubts
    assert first.startswith("a: only 1.") and others[-1].startswith("a: clipped")
    assert recognizer.enrol("anna", [recording]).doubts == (first, *others)


def test_too_little_speech_and_audio_without_a_finite_embedding_are_not_judged(recognizer):
    pause = np.r_[speech("anna", 0, 0.4).samples, np.zeros(2 * SAMPLE_RATE)]
    for samples in (speech("anna", 0, 0.45).samples, pause):
        few = recording_from_samples(samples, SAMPLE_RATE, SAMPLE_RATE, name="few")
        with pytest.raises(InputError, match="few: expected 0.5 s of speech or more, found 0.4"):
            recognizer.compare(few, speech("anna", 1))
    loud = recording_from_samples(1e38 * make_speech(110, 2.0, 0), SAMPLE_RATE, SAMPLE_RATE, name="loud")
    with pytest.raises(InputError, match="loud: .*finite"):
        recognizer.compare(loud, speech("anna", 1))


def test_recordings_come_from_files_and_streams(recognizer, tmp_path):
    soundfile.write(tmp_path / "a.wav", make_speech(110, 2.0, 0), SAMPLE_RATE, subtype="FLOAT")
    with open(tmp_path / "a.wav", "rb") as stream:
        from_stream = recognizer.compare(stream, tmp_path / "a.wav")
    assert from_stream.score == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="the stream: expected audio"):
        recognizer.compare(io.BytesIO(b"x"), str(tmp_path / "a.wav"))


def test_what_cannot_be_enrolled_is_told_and_makes_no_store(recognizer, model):
    with pytest.raises(InputError, match="expected recordings, found none"):
        recognizer.enrol("anna", [])
    with pytest.raises(InputError, match="invalid name"):
        recognizer.enrol(" ", [speech("anna", 0)])
    with pytest.raises(InputError, match="gone.wav: could not be read"):
        recognizer.enrol("anna", [speech("anna", 0), "gone.wav"])
    with pytest.raises(InputError, match="no store of voices"):
        recognizer.enrol("anna", [speech("anna", 0)], add=True)
    assert not recognizer.store_path.exists()
    with pytest.raises(InputError, match="give its file"):
        Recognizer(model).enrol("anna", [speech("anna", 0)])
    with pytest.raises(InputError, match="expected samples at 16,000 Hz, found 8,000 Hz"):
        recognizer.compare(recording_from_samples(speech("anna", 0).samples, 16000, 8000), speech("anna", 1))


def test_copies_of_a_recording_count_once_and_are_told(recognizer):
    copy = recording_from_samples(speech("anna", 0).samples, SAMPLE_RATE, SAMPLE_RATE, name="copy")
    done = recognizer.enrol("anna", [speech("anna", 0), copy, copy])
    assert done.num_recordings == 1 and done.speech_s == pytest.approx(speech("anna", 0).speech_s, abs=0.01)
    assert [doubt.partition(":")[0] for doubt in done.doubts] == ["copy", "copy"]
    added = recognizer.enrol("anna", [copy, speech("anna", 1)], add=True)
    assert added.num_recordings == 2 and added.doubts[0].startswith("copy: the same recording")
    assert recognizer.enrol("anna", [speech("anna", 2)], add=True).num_recordings == 3
    for seed in (0, 1, 2):
        with pytest.raises(InputError, match=f"anna {seed}: already enrolled as anna"):
            recognizer.enrol("anna", [speech("anna", seed)], add=True)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_enrolled_recording_that_is_tried_is_a_doubt_and_another_one_is_not(recognizer, number):
    recognizer.enrol("anna", [speech("anna", seed) for seed in range(number)])
    recognizer.enrol("bert", [speech("bert", 0)])
    for answer in (recognizer.verify("anna", speech("anna", 0)), recognizer.identify(speech("anna", 0))):
        assert answer.is_accepted and "anna 0" in answer.doubts[-1] and "replay" in answer.doubts[-1]
    quieter = recording_from_samples(0.5 * speech("anna", 0).samples, SAMPLE_RATE, SAMPLE_RATE, name="quieter")
    assert "replay" in recognizer.verify("anna", quieter).doubts[-1]
    assert recognizer.verify("anna", speech("anna", 9)).doubts == recognizer.identify(speech("anna", 9)).doubts == ()
    assert "replay" in recognizer.compare(speech("anna", 0), speech("anna", 0)).doubts[-1]


def test_one_path_is_one_recording(recognizer, tmp_path):
    soundfile.write(tmp_path / "a.wav", make_speech(110, 2.0, 0), SAMPLE_RATE)
    assert recognizer.enrol("anna", str(tmp_path / "a.wav")).num_recordings == 1
    assert recognizer.enrol("bert", tmp_path / "a.wav").num_recordings == 1


def test_a_name_is_one_voice_in_either_spelling_of_unicode(recognizer):
    recognizer.enrol("Jose\u0301", [speech("anna", 0)])
    with pytest.raises(InputError, match="already enrolled"):
        recognizer.enrol("Jos\u00e9", [speech("anna", 1)])
    for name in ("Jose\u0301", "Jos\u00e9"):
        assert recognizer.verify(name, speech("anna", 1)).is_accepted
    assert recognizer.forget("Jose\u0301")


def test_integer_samples_are_scaled():
    voice = make_speech(110, 2.0, 0)
    for kind, bits in ((np.int16, 15), (np.int32, 31)):
        given = recording_from_samples((voice * 2.0**bits).astype(kind), SAMPLE_RATE, SAMPLE_RATE)
        np.testing.assert_allclose(given.samples, voice, atol=1e-4)


def test_voices_of_a_store_that_was_deleted_or_replaced_are_not_accepted(recognizer, model, tmp_path):
    recognizer.enrol("anna", [speech("anna", 0)])
    assert recognizer.verify("anna", speech("anna", 1)).is_accepted and recognizer.identify(speech("anna", 1)).name
    for path in tmp_path.glob("voices.db*"):
        path.unlink()
    for ask in (lambda: recognizer.verify("anna", speech("anna", 1)), lambda: recognizer.identify(speech("anna", 1))):
        with pytest.raises(InputError, match="no store of voices"):
            ask()
    recognizer.enrol("bert", [speech("bert", 0)])
    other = Recognizer(model, tmp_path / "voices.db")
    assert [name for name, *_ in other.voices()] == ["bert"]
    for path in tmp_path.glob("voices.db*"):
        path.unlink()
    other.enrol("carl", [speech("carl", 0)])
    assert recognizer.identify(speech("carl", 1)).name == "carl" and len(recognizer.voices()) == 1
