"""Each corpus module on a tiny tree in the corpus' own layout."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_prep.corpora import librispeech, speaker_folders, speechocean762, voxceleb
from data_prep.prepare import prepare
from data_prep.settings import Settings
from tests.conftest import write_speakers
from voice_biometrics.common.audio_files import list_audio
from voice_biometrics.common.errors import InputError


def touch_audio(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, 0.1), 16000)


def ids(utterances) -> list[str]:
    return sorted(utterance.utt_id for utterance in utterances)


class TestSpeakerFolders:
    def test_one_folder_alone_is_all_training(self, tmp_path):
        touch_audio(tmp_path / "anna" / "1.wav")
        touch_audio(tmp_path / "bob" / "monday" / "1.flac")
        corpus = speaker_folders.find_utterances(tmp_path, "")
        assert [(u.utt_id, u.spk_id, u.path) for u in corpus.train] == [
            ("anna/1", "anna", "anna/1.wav"),
            ("bob/monday/1", "bob", "bob/monday/1.flac"),
        ]
        assert not corpus.test

    def test_layout_of_the_original_project_is_found_unchanged(self, tmp_path):
        touch_audio(tmp_path / "voxceleb_train" / "id1" / "a.wav")
        touch_audio(tmp_path / "voxceleb_test" / "id2" / "b.wav")
        (tmp_path / "target.csv").write_text("a,b,label\n")
        corpus = speaker_folders.find_utterances(tmp_path, "")
        assert corpus.train[0].path == "voxceleb_train/id1/a.wav"
        assert (corpus.test[0].utt_id, corpus.test[0].spk_id) == ("id2/b", "id2")
        assert corpus.trial_list == tmp_path / "target.csv"

    def test_a_speaker_called_strain_is_no_training_part(self, tmp_path):
        touch_audio(tmp_path / "strain" / "1.wav")
        touch_audio(tmp_path / "jones" / "1.wav")
        assert {u.spk_id for u in speaker_folders.find_utterances(tmp_path, "").train} == {"strain", "jones"}

    def test_two_training_parts_are_refused_by_name(self, tmp_path):
        for part in ("a_train", "b_train"):
            touch_audio(tmp_path / part / "s" / "1.wav")
        with pytest.raises(InputError, match="a_train, b_train"):
            speaker_folders.find_utterances(tmp_path, "")

    def test_a_test_part_without_a_training_part_is_refused(self, tmp_path):
        touch_audio(tmp_path / "my_test" / "s" / "1.wav")
        with pytest.raises(InputError, match="my_test"):
            speaker_folders.find_utterances(tmp_path, "")

    def test_a_file_outside_a_speaker_folder_is_refused_by_name(self, tmp_path):
        touch_audio(tmp_path / "lost.wav")
        with pytest.raises(InputError, match="lost.wav"):
            speaker_folders.find_utterances(tmp_path, "")

    def test_a_trial_list_that_is_not_there_is_refused_by_name(self, tmp_path):
        touch_audio(tmp_path / "train" / "s" / "1.wav")
        touch_audio(tmp_path / "test" / "t" / "1.wav")
        with pytest.raises(InputError, match="hard.csv"):
            speaker_folders.find_utterances(tmp_path, "hard.csv")

    def test_a_missing_folder_is_refused_by_name(self, tmp_path):
        with pytest.raises(InputError, match="nowhere.*--data_folder"):
            speaker_folders.find_utterances(tmp_path / "nowhere", "")


class TestListAudio:
    def test_a_folder_without_audio_says_what_was_looked_for(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(InputError, match=r"\.wav, \.flac.*found none"):
            list_audio(tmp_path)

    def test_m4a_alone_comes_with_the_command_that_converts_it(self, tmp_path):
        (tmp_path / "a.m4a").write_text("x")
        with pytest.raises(InputError, match="ffmpeg"):
            list_audio(tmp_path)

    def test_upper_case_suffixes_count_and_hidden_copies_do_not(self, tmp_path):
        for name in ("b.WAV", "a.Mp3", "._a.wav"):
            (tmp_path / name).write_text("x")
        assert list_audio(tmp_path) == ["a.Mp3", "b.WAV"]


def make_speechocean(root: Path, part: str, speakers: dict[str, tuple[str, str]]) -> None:
    folder = root / part
    folder.mkdir(parents=True)
    tables = {"wav.scp": "", "utt2spk": "", "spk2gender": "", "spk2age": ""}
    for speaker, (gender, age) in speakers.items():
        tables["spk2gender"] += f"{speaker} {gender}\n"
        tables["spk2age"] += f"{speaker}\t{age}\n"
        for number in range(2):
            path = f"WAVE/SPEAKER{speaker}/{speaker}{number}.WAV"
            touch_audio(root / path)
            tables["wav.scp"] += f"{speaker}{number}\t{path}\n"
            tables["utt2spk"] += f"{speaker}{number} {speaker}\n"
    for name, text in tables.items():
        (folder / name).write_text(text)


class TestSpeechocean762:
    def test_full_release_has_its_test_half_and_keeps_gender_and_age(self, tmp_path):
        make_speechocean(tmp_path, "train", {"0001": ("m", "37"), "0002": ("f", "8")})
        make_speechocean(tmp_path, "test", {"0003": ("f", "9")})
        corpus = speechocean762.find_utterances(tmp_path, "")
        assert ids(corpus.train) == ["00010", "00011", "00020", "00021"]
        assert dict(corpus.train[2].metadata) == {"gender": "f", "age": "8"}
        assert {u.spk_id for u in corpus.test} == {"0003"} and corpus.trial_list is None

    def test_without_its_test_half_there_is_no_test_part(self, tmp_path):
        make_speechocean(tmp_path, "train", {"0001": ("m", "37")})
        assert speechocean762.find_utterances(tmp_path, "").test == []

    def test_a_missing_table_is_refused_by_name(self, tmp_path):
        make_speechocean(tmp_path, "train", {"0001": ("m", "37")})
        for table in ("wav.scp", "utt2spk", "spk2gender", "spk2age"):
            path = (tmp_path / "train" / table).rename(tmp_path / "aside")
            with pytest.raises(InputError, match=f"{table}: missing"):
                speechocean762.find_utterances(tmp_path, "")
            path.rename(tmp_path / "train" / table)

    def test_a_listed_file_that_is_not_there_is_refused_by_name(self, tmp_path):
        make_speechocean(tmp_path, "train", {"0001": ("m", "37")})
        (tmp_path / "WAVE/SPEAKER0001/00011.WAV").unlink()
        with pytest.raises(InputError, match="00011.WAV"):
            speechocean762.find_utterances(tmp_path, "")

    def test_a_malformed_line_is_refused_by_its_number(self, tmp_path):
        make_speechocean(tmp_path, "train", {"0001": ("m", "37")})
        with open(tmp_path / "train" / "utt2spk", "a") as table:
            table.write("lonely\n")
        with pytest.raises(InputError, match="utt2spk, line 3"):
            speechocean762.find_utterances(tmp_path, "")


class TestLibrispeech:
    def make(self, root: Path) -> None:
        touch_audio(root / "train-clean-100" / "19" / "198" / "19-198-0000.flac")
        touch_audio(root / "train-other-500" / "20" / "205" / "20-205-0000.ogg")
        touch_audio(root / "test-clean" / "61" / "70968" / "61-70968-0000.flac")
        touch_audio(root / "dev-clean" / "84" / "1" / "84-1-0000.flac")
        (root / "SPEAKERS.TXT").write_text(";c\n19 | F | train-clean-100 | 25 | A\n20 | M | x | 1 | B\n61 | M | x\n")

    def test_training_parts_are_joined_and_test_clean_is_the_test_part(self, tmp_path):
        self.make(tmp_path)
        corpus = librispeech.find_utterances(tmp_path, "")
        assert ids(corpus.train) == ["19-198-0000", "20-205-0000"]
        assert ids(corpus.test) == ["61-70968-0000"]
        assert corpus.train[0].metadata["gender"] == "f"

    def test_a_speaker_without_metadata_is_refused_by_name(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "SPEAKERS.TXT").write_text("19 | F | x | 25 | A\n")
        with pytest.raises(InputError, match="speaker 20"):
            librispeech.find_utterances(tmp_path, "")

    def test_a_malformed_speaker_line_is_refused_by_its_number(self, tmp_path):
        self.make(tmp_path)
        (tmp_path / "SPEAKERS.TXT").write_text("19 | F | x\n20 ? M\n")
        with pytest.raises(InputError, match="line 2"):
            librispeech.find_utterances(tmp_path, "")

    def test_wrong_layout_is_refused(self, tmp_path):
        touch_audio(tmp_path / "19" / "198" / "19-198-0000.flac")
        with pytest.raises(InputError, match="train-clean-100"):
            librispeech.find_utterances(tmp_path, "")


class TestVoxceleb:
    def make(self, root: Path, speakers: list[str], trial_list: str = "veri_test2.txt") -> None:
        for speaker in speakers:
            for video in ("va", "vb"):
                touch_audio(root / "wav" / speaker / video / "00001.wav")
        (root / trial_list).write_text(
            "1 id10270/va/00001.wav id10270/vb/00001.wav\n0 id10270/va/00001.wav id10271/va/00001.wav\n"
        )

    def test_speakers_of_the_trials_are_kept_out_of_training(self, tmp_path):
        self.make(tmp_path, ["id10001", "id10270", "id10271"])
        corpus = voxceleb.find_utterances(tmp_path, "")
        assert {u.spk_id for u in corpus.train} == {"id10001"}
        assert ids(corpus.test) == ["id10270/va/00001", "id10270/vb/00001", "id10271/va/00001"]
        assert corpus.trial_list == tmp_path / "veri_test2.txt"

    def test_another_list_can_be_named(self, tmp_path):
        self.make(tmp_path, ["id10001", "id10270", "id10271"], "veri_test.txt")
        assert voxceleb.find_utterances(tmp_path, "veri_test.txt").trial_list.name == "veri_test.txt"

    def test_lists_e_and_h_leave_no_voxceleb1_speaker_to_train_on_and_say_why(self, tmp_path):
        for trial_list in ("list_test_all2.txt", "list_test_hard2.txt", "list_test_hard.txt"):
            self.make(tmp_path, ["id10001", "id10270", "id10271"], trial_list)
            corpus = voxceleb.find_utterances(tmp_path, trial_list)
            assert corpus.train == [] and "VoxCeleb2" in corpus.hint

    def test_voxceleb2_needs_no_trial_list(self, tmp_path):
        touch_audio(tmp_path / "dev" / "wav" / "id00012" / "v" / "00001.wav")
        corpus = voxceleb.find_utterances(tmp_path, "")
        assert ids(corpus.train) == ["id00012/v/00001"] and corpus.test == []

    def test_voxceleb2_as_released_says_how_to_convert_it(self, tmp_path):
        path = tmp_path / "dev" / "aac" / "id00012" / "v" / "00001.m4a"
        path.parent.mkdir(parents=True)
        path.write_text("x")
        with pytest.raises(InputError, match="ffmpeg"):
            voxceleb.find_utterances(tmp_path, "")

    def test_a_missing_list_is_refused_by_name(self, tmp_path):
        self.make(tmp_path, ["id10001"])
        (tmp_path / "veri_test2.txt").unlink()
        with pytest.raises(InputError, match="veri_test2.txt"):
            voxceleb.find_utterances(tmp_path, "")

    def test_gender_and_nationality_come_from_the_metadata(self, tmp_path):
        self.make(tmp_path, ["id10001", "id10270", "id10271"])
        (tmp_path / "vox1_meta.csv").write_text(
            "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA\tm\tIreland\tdev\n"
        )
        first = voxceleb.find_utterances(tmp_path, "").train[0]
        assert dict(first.metadata) == {"gender": "m", "nationality": "Ireland"}


def test_kaldis_absolute_paths_are_those_below_the_data_folder(tmp_path):
    folder = write_kaldi_folder(tmp_path / "c", lambda path: (tmp_path / "c" / path).absolute())
    prepare(Settings("speechocean762", str(folder), valid_speakers=0), tmp_path / "m")
    wav = pd.read_csv(tmp_path / "m" / "train.csv")["wav"]
    assert wav.str.startswith("$data_root/WAVE/").all()
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(InputError, match="wav.scp.*not below"):
        prepare(Settings("speechocean762", str(tmp_path / "copy"), valid_speakers=0), tmp_path / "n")


def test_a_table_that_is_not_utf_8_is_told(tmp_path):
    folder = write_kaldi_folder(tmp_path / "c", lambda path: path)
    (folder / "train" / "spk2age").write_bytes(b"Jos\xe9 20\n")
    with pytest.raises(InputError, match="spk2age.*UTF-8"):
        prepare(Settings("speechocean762", str(folder), valid_speakers=0), tmp_path / "m")


def write_kaldi_folder(folder, written_as):
    write_speakers(folder / "WAVE", num_speakers=3, num_utterances=2, duration_s=0.1)
    (folder / "train").mkdir()
    paths = sorted(path.relative_to(folder) for path in folder.glob("WAVE/*/*"))
    utterances = [(f"{path.parent.name}_{path.stem}", path) for path in paths]
    for name, value in (("wav.scp", written_as), ("utt2spk", lambda path: path.parent.name)):
        lines = [f"{utt_id} {value(path)}\n" for utt_id, path in utterances]
        (folder / "train" / name).write_text("".join(lines))
    for name, value in (("spk2gender", "f"), ("spk2age", "20")):
        (folder / "train" / name).write_text("".join(f"spk{number} {value}\n" for number in range(3)))
    return folder
