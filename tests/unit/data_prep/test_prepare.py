"""Preparation: splits by speaker, skipped files, joined corpora, and what it refuses."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_prep.prepare import prepare
from data_prep.settings import Settings
from tests.conftest import forget_setting, make_voice, write_speakers
from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_manifest, read_utterances
from voice_biometrics.common.trial_lists import read_trials
from voice_biometrics.experiment.hparams import as_yaml, default_tree, plain_settings


def settings(folder, corpus="speaker_folders", **changes) -> Settings:
    return Settings(corpus=corpus, data_folder=str(folder), **{"valid_speakers": 2, **changes})


def speakers_of(path) -> set[str]:
    return set(read_manifest(path)["spk_id"])


def test_speakers_are_split_never_utterances_and_all_are_kept(speakers, tmp_path):
    record = prepare(settings(speakers, test_speakers=2), tmp_path / "m")
    parts = [speakers_of(tmp_path / "m" / f"{part}.csv") for part in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert set.union(*parts) == {f"spk{i}" for i in range(6)}
    assert record["num_speakers"] == 2
    trials = read_trials(tmp_path / "m" / "valid_trials.csv")
    assert (len(trials), trials["target"].sum()) == (28, 12)  # all pairs of 2 x 4 utterances


def test_manifest_has_speechbrains_columns_with_a_root_to_replace(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    manifest = pd.read_csv(tmp_path / "m" / "train.csv")
    assert list(manifest.columns) == ["ID", "duration", "wav", "start", "stop", "spk_id"]
    first = manifest.iloc[0]
    assert first["wav"].startswith("$data_root/spk") and first["ID"] == first["wav"][len("$data_root/") : -4]
    assert (first["start"], first["stop"]) == (0, round(first["duration"] * 16000))
    assert manifest["ID"].is_monotonic_increasing


def test_two_preparations_write_the_same_bytes_and_another_split_seed_other_ones(speakers, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(settings(speakers, split_seed=seed), tmp_path / name)
    names = ("train.csv", "valid.csv", "valid_trials.csv")
    a, b, c = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in "abc")
    assert a == b and a != c


def test_nothing_is_done_again_until_the_settings_or_the_files_change(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    (tmp_path / "m" / "train.csv").write_text("a mark")
    prepare(settings(speakers), tmp_path / "m")
    assert (tmp_path / "m" / "train.csv").read_text() == "a mark"
    forget_setting(tmp_path / "m", "train_utterances")
    prepare(settings(speakers), tmp_path / "m")
    assert (tmp_path / "m" / "train.csv").read_text() == "a mark"
    soundfile.write(speakers / "spk0" / "new.wav", np.full(16000, 0.1), 16000)
    prepare(settings(speakers), tmp_path / "m")
    assert len(read_manifest(tmp_path / "m" / "train.csv")) + len(read_manifest(tmp_path / "m" / "valid.csv")) == 25


def test_the_defaults_of_the_settings_are_those_of_the_hparams_file():
    hparams = plain_settings(as_yaml(default_tree()))
    assert Settings.from_hparams(hparams) == Settings(hparams["corpus"], hparams["data_folder"])


def test_a_preparation_that_was_killed_is_done_again(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    (tmp_path / "m" / "prepared.json").unlink()  # written last
    (tmp_path / "m" / "train.csv").write_text("half")
    prepare(settings(speakers), tmp_path / "m")
    assert len(speakers_of(tmp_path / "m" / "train.csv")) == 4


def test_nobody_is_held_out_with_zero_valid_speakers_and_an_old_validation_part_is_removed(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    prepare(settings(speakers, valid_speakers=0), tmp_path / "m")
    assert len(speakers_of(tmp_path / "m" / "train.csv")) == 6
    assert not (tmp_path / "m" / "valid.csv").exists()


def test_an_impossible_number_of_held_out_speakers_is_refused(speakers, tmp_path):
    for amount in (1, 2.5, 5, -1):
        with pytest.raises(InputError, match="valid_speakers"):
            prepare(settings(speakers, valid_speakers=amount), tmp_path / "m")
        assert not (tmp_path / "m").exists()


def test_one_speaker_only_is_refused(tmp_path):
    write_speakers(tmp_path / "s", num_speakers=1, num_utterances=3)
    with pytest.raises(InputError, match="found 1"):
        prepare(settings(tmp_path / "s", valid_speakers=0), tmp_path / "m")


def test_a_bad_training_file_is_skipped_counted_and_listed(tmp_path):
    write_speakers(tmp_path / "s", num_speakers=4, num_utterances=30, duration_s=0.1)
    (tmp_path / "s" / "spk1" / "bad.wav").write_text("no audio")
    record = prepare(settings(tmp_path / "s"), tmp_path / "m")
    skipped = pd.read_csv(tmp_path / "m" / "skipped.csv")
    assert record["num_skipped"] == 1 and skipped["file"].tolist() == ["spk1/bad.wav"]


def test_more_than_one_per_cent_of_bad_files_is_an_error_naming_the_first(speakers, tmp_path):
    (speakers / "spk1" / "bad.wav").write_text("no audio")
    with pytest.raises(InputError, match="1 of 25.*spk1/bad.wav"):
        prepare(settings(speakers), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def make_parts(folder):
    write_speakers(folder / "train", num_speakers=5, num_utterances=3)
    write_speakers(folder / "test", num_speakers=2, num_utterances=2, first_speaker=5)
    return folder


def test_a_bad_test_file_is_an_error(tmp_path):
    folder = make_parts(tmp_path / "c")
    (folder / "test" / "spk5" / "bad.wav").write_text("no audio")
    with pytest.raises(InputError, match="test part.*bad.wav"):
        prepare(settings(folder), tmp_path / "m")


def test_a_test_part_comes_with_all_pairs_or_with_its_list(tmp_path):
    folder = make_parts(tmp_path / "c")
    prepare(settings(folder), tmp_path / "m")
    assert len(read_trials(tmp_path / "m" / "test_trials.csv")) == 6
    (folder / "target.csv").write_text("p,q,label\nspk5/utt0.wav,spk5/utt1.wav,1\nspk5/utt0.wav,spk6/utt1.wav,0\n")
    prepare(settings(folder), tmp_path / "m")
    trials = read_trials(tmp_path / "m" / "test_trials.csv")
    assert trials.to_numpy().tolist() == [["spk5/utt0", "spk5/utt1", 1], ["spk5/utt0", "spk6/utt1", 0]]


def test_a_trial_of_an_unknown_file_is_refused_by_name(tmp_path):
    folder = make_parts(tmp_path / "c")
    (folder / "target.csv").write_text("p,q,label\nspk5/utt0.wav,spk5/gone.wav,1\nspk5/utt0.wav,spk6/utt1.wav,0\n")
    with pytest.raises(InputError, match="spk5/gone.wav"):
        prepare(settings(folder), tmp_path / "m")


def test_a_speaker_in_training_and_trials_is_refused_by_name(tmp_path):
    write_speakers(tmp_path / "c" / "train", num_speakers=5, num_utterances=2)
    write_speakers(tmp_path / "c" / "test", num_speakers=2, num_utterances=2)
    with pytest.raises(InputError, match="speaker spk"):
        prepare(settings(tmp_path / "c", valid_speakers=0), tmp_path / "m")


def test_one_id_for_two_files_is_refused_naming_both(speakers, tmp_path):
    sound, rate = soundfile.read(speakers / "spk0" / "utt0.wav")
    soundfile.write(speakers / "spk0" / "utt0.flac", sound, rate)
    with pytest.raises(InputError, match="utt0.*utt0.flac.*utt0.wav|utt0.*utt0.wav.*utt0.flac"):
        prepare(settings(speakers, valid_speakers=0), tmp_path / "m")


def test_joined_corpora_keep_equal_speaker_names_apart_and_their_roots_too(tmp_path):
    for name in ("a", "b"):
        write_speakers(tmp_path / name, num_speakers=4, num_utterances=2)
    joined = settings(f"{tmp_path / 'a'},{tmp_path / 'b'}", corpus="speaker_folders,speaker_folders")
    assert prepare(joined, tmp_path / "m")["num_speakers"] == 4  # 2 of 4 held out in each
    manifest = read_manifest(tmp_path / "m" / "train.csv")
    assert {spk.rpartition("-")[0] for spk in manifest["spk_id"]} == {"speaker_folders", "speaker_folders_2"}
    for root, folder in joined.replacements().items():
        assert manifest["wav"].str.startswith(f"${root}/").sum() == 4
        assert folder in (str(tmp_path / "a"), str(tmp_path / "b"))
    trials = read_trials(tmp_path / "m" / "valid_trials.csv")
    same_corpus = trials["enrol_id"].str.rpartition("-")[0] == trials["test_id"].str.rpartition("-")[0]
    assert same_corpus.all()  # pairs across corpora would be too easy


def test_a_corpus_of_one_utterance_a_speaker_joins_without_holding_any_out(tmp_path):
    write_speakers(tmp_path / "a", num_speakers=5, num_utterances=3)
    write_speakers(tmp_path / "b", num_speakers=3, num_utterances=1)
    joined = settings(f"{tmp_path / 'a'},{tmp_path / 'b'}", corpus="speaker_folders,speaker_folders")
    assert prepare(joined, tmp_path / "m")["num_speakers"] == 6


def test_fewer_training_speakers_are_among_more_and_the_held_out_ones_stay(tmp_path):
    write_speakers(tmp_path / "s", num_speakers=10, num_utterances=2, duration_s=0.1)
    kept = {}
    for amount in (1.0, 0.5, 0.25, 3):
        prepare(settings(tmp_path / "s", train_speakers=amount), tmp_path / str(amount))
        kept[amount] = speakers_of(tmp_path / str(amount) / "train.csv")
        held_out = (tmp_path / str(amount) / "valid.csv").read_bytes()
        assert held_out == (tmp_path / "1.0" / "valid.csv").read_bytes()
    assert [len(kept[amount]) for amount in (1.0, 0.5, 3, 0.25)] == [8, 4, 3, 2]
    assert kept[1.0] > kept[0.5] > kept[3] > kept[0.25]
    prepare(settings(tmp_path / "s", train_speakers=0.5, split_seed=2), tmp_path / "other")
    assert speakers_of(tmp_path / "other" / "train.csv") != kept[0.5]


def test_fewer_training_utterances_of_each_speaker_are_among_more_and_the_held_out_ones_stay(tmp_path):
    write_speakers(tmp_path / "s", num_speakers=10, num_utterances=4, duration_s=0.1)
    kept = {}
    for count in (0, 3, 1):
        prepare(settings(tmp_path / "s", train_utterances=count), tmp_path / str(count))
        kept[count] = read_manifest(tmp_path / str(count) / "train.csv")
        assert (tmp_path / str(count) / "valid.csv").read_bytes() == (tmp_path / "0" / "valid.csv").read_bytes()
    assert [len(kept[count]) for count in (0, 3, 1)] == [32, 24, 8]
    assert kept[1]["spk_id"].is_unique
    assert set(kept[0]["ID"]) > set(kept[3]["ID"]) > set(kept[1]["ID"])
    assert kept[1]["ID"].str[-1].nunique() > 1  # not the first of each


def test_an_impossible_number_of_training_speakers_is_refused(speakers, tmp_path):
    for amount in (0, 2.5, 5):
        with pytest.raises(InputError, match=f"train_speakers {amount:g}"):
            prepare(settings(speakers, train_speakers=amount), tmp_path / "m")
        assert not (tmp_path / "m").exists()


def test_speakers_are_held_out_of_one_of_the_joined_corpora_and_are_those_of_it_alone(tmp_path):
    for name, first in (("a", 0), ("b", 7)):
        write_speakers(tmp_path / name, num_speakers=7, num_utterances=2, duration_s=0.1, first_speaker=first)
    prepare(settings(tmp_path / "a"), tmp_path / "alone")
    joined = settings(
        f"{tmp_path / 'a'},{tmp_path / 'b'}", corpus="speaker_folders,speaker_folders", valid_corpus="speaker_folders"
    )
    assert prepare(joined, tmp_path / "m")["num_speakers"] == 12
    alone = read_manifest(tmp_path / "alone" / "valid.csv")
    together = read_manifest(tmp_path / "m" / "valid.csv")
    assert together["ID"].tolist() == ("speaker_folders-" + alone["ID"]).tolist()
    trials = [read_trials(tmp_path / name / "valid_trials.csv") for name in ("alone", "m")]
    assert trials[1]["enrol_id"].tolist() == ("speaker_folders-" + trials[0]["enrol_id"]).tolist()


def test_unknown_corpora_and_missing_folders_are_refused():
    for corpus, folders, valid_corpus, found in (
        ("voxseleb", "a", "", "voxseleb"),
        ("", "a", "", "demo_voices"),
        ("voxceleb,librispeech", "a", "", "2 corpora, 1 data folders"),
        ("speaker_folders", "a", "librispeech", "valid_corpus 'librispeech'.*speaker_folders"),
    ):
        with pytest.raises(InputError, match=found):
            Settings(corpus=corpus, data_folder=folders, valid_corpus=valid_corpus).corpora()


def test_the_record_can_be_read_by_people(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    record = json.loads((tmp_path / "m" / "prepared.json").read_text())
    assert record["settings"]["valid_speakers"] == 2 and "data_folder" not in record["settings"]


def test_each_of_the_joined_corpora_can_hold_out_its_own_number_of_speakers(tmp_path):
    for name, first in (("a", 0), ("b", 9)):
        write_speakers(tmp_path / name, num_speakers=9, num_utterances=2, duration_s=0.1, first_speaker=first)
    folders, corpora = f"{tmp_path / 'a'},{tmp_path / 'b'}", "speaker_folders,speaker_folders"
    prepare(settings(folders, corpus=corpora, valid_speakers="2,4"), tmp_path / "m")
    held_out = speakers_of(tmp_path / "m" / "valid.csv")
    assert sorted(spk.rpartition("-")[0] for spk in held_out) == ["speaker_folders"] * 2 + ["speaker_folders_2"] * 4
    with pytest.raises(InputError, match="valid_speakers '2,4,6'"):
        prepare(settings(folders, corpus=corpora, valid_speakers="2,4,6"), tmp_path / "n")


def test_names_are_composed_unicode_whatever_the_file_system_holds(tmp_path):
    write_speakers(tmp_path / "c", num_speakers=4, num_utterances=2, duration_s=0.1)
    (tmp_path / "c" / "spk0").rename(tmp_path / "c" / "Jose\u0301")
    prepare(settings(tmp_path / "c", valid_speakers=0), tmp_path / "m")
    assert "Jos\u00e9" in speakers_of(tmp_path / "m" / "train.csv")
    assert Path(read_utterances(tmp_path / "m" / "train.csv", {"data_root": str(tmp_path / "c")})["wav"][0]).is_file()


@pytest.mark.parametrize("name", [b"Jos\xe9", b" bob"])
def test_a_name_that_manifests_cannot_hold_is_refused(tmp_path, name):
    write_speakers(tmp_path / "c", num_speakers=4, num_utterances=2, duration_s=0.1)
    (tmp_path / "c" / "spk0").rename(Path(os.fsdecode(os.fsencode(tmp_path / "c") + b"/" + name)))
    with pytest.raises(InputError, match="rename"):
        prepare(settings(tmp_path / "c", valid_speakers=0), tmp_path / "m")


def test_a_corpus_one_level_too_deep_is_refused_naming_the_folder(tmp_path):
    write_speakers(tmp_path / "voices" / "wav", num_speakers=4, num_utterances=2, duration_s=0.1)
    with pytest.raises(InputError, match="--data_folder .*voices/wav"):
        prepare(settings(tmp_path / "voices"), tmp_path / "m")


def test_copies_of_a_file_under_two_speakers_are_reported(tmp_path, caplog):
    write_speakers(tmp_path / "c", num_speakers=4, num_utterances=2, duration_s=0.1)
    (tmp_path / "c" / "spk1" / "copy.wav").write_bytes((tmp_path / "c" / "spk0" / "utt0.wav").read_bytes())
    prepare(settings(tmp_path / "c"), tmp_path / "m")
    assert "spk0/utt0.wav" in caplog.text and "spk1/copy.wav" in caplog.text


def test_a_trial_that_contradicts_the_speakers_is_refused_before_training(tmp_path):
    folder = make_parts(tmp_path / "c")
    (folder / "target.csv").write_text(
        "spk5/utt0.wav,spk5/utt1.wav,1\nspk5/utt0.wav,spk6/utt1.wav,1\nspk5/utt1,spk6/utt0,0"
    )
    with pytest.raises(InputError, match="target.csv, line 2"):
        prepare(settings(folder), tmp_path / "m")


def rename(folder):
    (folder / "spk1").rename(folder / "spk1b")


def remove(folder):
    shutil.rmtree(folder / "spk2")


def add(folder):
    shutil.copytree(folder / "spk3", folder / "spk9")


@pytest.mark.parametrize("change, named", [(rename, "spk1b"), (remove, "spk2"), (add, "spk9")])
def test_a_trained_run_keeps_its_manifests_when_the_speakers_of_the_corpus_change(speakers, tmp_path, change, named):
    prepare(settings(speakers), tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    soundfile.write(speakers / "spk0" / "new.wav", np.full(16000, 0.1), 16000)
    change(speakers)
    with pytest.raises(InputError, match=f"{named} is "):
        prepare(settings(speakers), tmp_path / "m", is_trained=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def test_a_trained_run_takes_further_files_of_its_speakers_but_not_a_lost_manifest(speakers, tmp_path):
    prepare(settings(speakers), tmp_path / "m")
    soundfile.write(speakers / "spk0" / "new.wav", np.full(16000, 0.1), 16000)
    prepare(settings(speakers), tmp_path / "m", is_trained=True)
    assert len(read_manifest(tmp_path / "m" / "train.csv")) + len(read_manifest(tmp_path / "m" / "valid.csv")) == 25
    (tmp_path / "m" / "train.csv").unlink()
    with pytest.raises(InputError, match="train.csv: missing"):
        prepare(settings(speakers), tmp_path / "m", is_trained=True)


@pytest.mark.parametrize("name", ["train.csv", "valid.csv", "valid_trials.csv"])
def test_a_manifest_that_was_deleted_is_written_again(speakers, tmp_path, name):
    prepare(settings(speakers), tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    prepare(settings(speakers), tmp_path / "m")
    assert (tmp_path / "m" / name).is_file()


def write_two_people(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    talks = np.repeat(np.random.default_rng(0).random(16) > 0.5, 4000)
    sounds = [make_voice(120, 4.0, seed=0) * talks, make_voice(210, 4.0, seed=1) * ~talks]
    soundfile.write(path, np.stack(sounds, axis=1), 16000)


def test_two_people_on_two_channels_are_reported_and_one_channel_can_be_taken(speakers, tmp_path, caplog):
    write_two_people(speakers / "spk0" / "two.wav")
    prepare(settings(speakers, valid_speakers=0, check_audio=True), tmp_path / "m")
    assert "spk0/two.wav" in caplog.text and "choose one channel" in caplog.text
    caplog.clear()
    prepare(settings(speakers, valid_speakers=0, check_audio=True, channel=2), tmp_path / "m")
    assert "spk0/two.wav" not in caplog.text
    manifest = read_utterances(tmp_path / "m" / "train.csv", {"data_root": str(speakers)}).set_index("ID")
    second = soundfile.read(speakers / "spk0" / "two.wav", dtype="float32")[0][:, 1]
    np.testing.assert_array_equal(read_audio(manifest["wav"]["spk0/two"], 16000), second)
    assert "#" not in manifest["wav"]["spk0/utt0"]  # one channel only


def test_a_channel_that_a_file_does_not_have_is_a_fault_of_the_file(speakers, tmp_path):
    write_two_people(speakers / "spk0" / "two.wav")
    with pytest.raises(InputError, match="spk0/two.wav: 2 channels, so there is no channel 3"):
        prepare(settings(speakers, channel=3), tmp_path / "m")


def test_rumble_and_an_offset_are_reported_when_files_are_decoded(speakers, tmp_path, caplog):
    voice, time_s = make_voice(120, 2.0, seed=0), np.arange(32000) / 16000
    soundfile.write(speakers / "spk0" / "offset.wav", voice + 0.05, 16000)
    soundfile.write(speakers / "spk1" / "rumble.wav", voice + 0.05 * np.sin(2 * np.pi * 7 * time_s), 16000)
    prepare(settings(speakers, check_audio=True), tmp_path / "m")
    (line,) = [record.getMessage() for record in caplog.records if "below the voice" in record.getMessage()]
    assert "2 of 26 files" in line and "spk0/offset.wav" in line and "spk1/rumble.wav" in line


def test_copies_within_a_speaker_and_between_train_and_test_are_reported(tmp_path, caplog):
    folder = make_parts(tmp_path / "c")
    shutil.copy(folder / "train" / "spk0" / "utt0.wav", folder / "train" / "spk0" / "again.wav")
    shutil.copy(folder / "train" / "spk1" / "utt1.wav", folder / "test" / "spk5" / "leak.wav")
    prepare(settings(folder), tmp_path / "m")
    same, other = (next(r.getMessage() for r in caplog.records if name in r.getMessage()) for name in ("again", "leak"))
    assert "trials of equal recordings" in same and "another speaker" in other


@pytest.mark.parametrize("depth", ["voices", "voices/a/b"])
def test_speakers_too_deep_are_found_beside_other_files_too(tmp_path, depth):
    write_speakers(tmp_path / "c" / depth, num_speakers=4, num_utterances=2, duration_s=0.1)
    (tmp_path / "c" / "README.txt").write_text("about")
    (tmp_path / "c" / "text").mkdir()
    with pytest.raises(InputError, match=f"--data_folder .*c/{depth}$"):
        prepare(settings(tmp_path / "c"), tmp_path / "m")


def test_a_link_to_a_speaker_folder_that_is_gone_is_told(speakers, tmp_path, caplog):
    (speakers / "spk8").symlink_to(tmp_path / "gone")
    prepare(settings(speakers), tmp_path / "m")
    assert "spk8" in caplog.text and "do not exist" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{"valid_speakers": float("nan")}, {"valid_speakers": "nan"}, {"train_speakers": float("inf")}, {"split_seed": -1},
     {"max_trials": 0}, {"max_trials": -5}, {"channel": -1}],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused_by_their_key(speakers, tmp_path, changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        prepare(settings(speakers, **changes), tmp_path / "m")
