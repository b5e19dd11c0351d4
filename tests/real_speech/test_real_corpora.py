"""The corpus modules on the real corpora, where they are at hand."""

import pytest

from data_prep.corpora import common_voice, librispeech, speechocean762
from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.common.manifest import read_manifest
from voice_biometrics.common.trial_lists import read_trials


def test_speechocean762_holds_out_25_of_125_speakers_and_pairs_all_their_utterances(shared, tmp_path):
    folder = shared / "corpora" / "speechocean762"
    record = prepare(Settings("speechocean762", str(folder)), tmp_path)
    assert record["num_speakers"] == 100 and record["num_skipped"] == 0
    assert len(read_manifest(tmp_path / "train.csv")) == 2000
    trials = read_trials(tmp_path / "valid_trials.csv")
    assert (len(trials), trials["target"].sum()) == (500 * 499 // 2, 25 * 190)


def test_speechocean762_keeps_gender_and_age(shared):
    utterances = speechocean762.find_utterances(shared / "corpora" / "speechocean762", "").train
    assert len(utterances) == 2500
    assert {utterance.metadata["gender"] for utterance in utterances} == {"m", "f"}
    assert {int(utterance.metadata["age"]) for utterance in utterances} >= {6, 31}


def test_librispeech_excerpt_has_251_speakers_of_either_gender(shared):
    utterances = librispeech.find_utterances(shared / "corpora" / "librispeech_excerpt", "").train
    assert len(utterances) == len({utterance.spk_id for utterance in utterances}) == 251
    assert {utterance.metadata["gender"] for utterance in utterances} == {"m", "f"}


def test_both_joined_train_on_all_librispeech_speakers_and_hold_out_the_same_of_speechocean762(shared, tmp_path):
    folders = [str(shared / "corpora" / name) for name in ("speechocean762", "librispeech_excerpt")]
    record = prepare(Settings("speechocean762,librispeech", ",".join(folders)), tmp_path / "joined")
    assert record["num_speakers"] == 100 + 251
    prepare(Settings("speechocean762", folders[0]), tmp_path / "alone")
    joined = read_manifest(tmp_path / "joined" / "valid.csv")["spk_id"].str.removeprefix("speechocean762-")
    assert set(joined) == set(read_manifest(tmp_path / "alone" / "valid.csv")["spk_id"])


def test_common_voice_excerpt_has_2254_speakers_in_59_languages_with_unique_short_ids(shared):
    folder = shared / "corpora" / "common_voice_excerpt"
    corpus = common_voice.find_utterances(folder, "")
    assert len(corpus.train) == 5296 and corpus.left_out == []
    assert len({utterance.utt_id for utterance in corpus.train}) == 5296
    speakers = {utterance.spk_id for utterance in corpus.train}
    assert len(speakers) == 2254 and {len(spk_id) for spk_id in speakers} == {8}
    assert len({utterance.metadata["language"] for utterance in corpus.train}) == 59
    assert {utterance.metadata["gender"] for utterance in corpus.train} == {"m", "f", "other", ""}
    german = common_voice.find_utterances(folder / "de", "").train
    assert {utterance.spk_id for utterance in german} < speakers and len(german) == 93


def test_common_voice_holds_out_speakers_with_two_clips_or_more(shared, tmp_path):
    folder = shared / "corpora" / "common_voice_excerpt"
    record = prepare(Settings("common_voice", str(folder), valid_speakers=60), tmp_path)
    assert record["num_speakers"] == 2254 - 60 and record["num_skipped"] == 0
    held_out = read_manifest(tmp_path / "valid.csv")
    assert held_out["spk_id"].value_counts().min() >= 2
    assert len(held_out) + len(read_manifest(tmp_path / "train.csv")) == 5296


@pytest.mark.parametrize("column, counted", [("target", 18_802), ("enrol_id", 37_611)])
def test_the_list_of_voxceleb1_o_is_read_whole(shared, column, counted):
    trials = read_trials(shared / "trials" / "veri_test2.txt")
    assert (trials[column].sum() if column == "target" else len(trials)) == counted
