"""Common Voice on tiny trees in its released layout, and the faults that such tables and clips have."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_prep.corpora import common_voice
from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_manifest

HEADER = "client_id path sentence up_votes down_votes age gender accent locale segment".split()
ANNA, BERT, CLEO = ("a" * 8 + "0" * 120, "b" * 128, "c" * 128)  # as long as in the release


def row(client_id: str, path: str, **changes: str) -> dict[str, str]:
    """Return a row of ``validated.tsv``."""
    defaults = {"sentence": "Hello.", "up_votes": "2", "down_votes": "0", "locale": path.split("_")[2]}
    return {**dict.fromkeys(HEADER, ""), **defaults, "client_id": client_id, "path": path, **changes}


def write_language(root: Path, language: str, rows: list[dict[str, str]], name: str = "validated.tsv") -> Path:
    """Write a table and, for each row of it, a clip; return the language's folder."""
    folder = root / language
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    lines = ["\t".join(columns), *("\t".join(item[column] for column in columns) for item in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for item in rows:
        soundfile.write(folder / "clips" / item["path"], np.full(1600, 0.1), 16000)
    return folder


def rows_of(client_id: str, language: str, num_clips: int, first: int = 0) -> list[dict[str, str]]:
    numbers = range(first, first + num_clips)
    return [row(client_id, f"common_voice_{language}_{number}.mp3") for number in numbers]


def german(root: Path) -> Path:
    return write_language(root, "de", [*rows_of(ANNA, "de", 2), *rows_of(BERT, "de", 1, first=2)])


def settings(folder: Path, **changes) -> Settings:
    return Settings(corpus="common_voice", data_folder=str(folder), **changes)


class TestLayout:
    def test_one_language_is_read_with_its_metadata(self, tmp_path):
        given = {"age": "fourties", "gender": "female", "accent": "austria"}
        folder = write_language(tmp_path, "de", [row(ANNA, "common_voice_de_1.mp3", **given)])
        (utterance,) = common_voice.find_utterances(folder, "").train
        assert utterance[:3] == ("cv-de-aaaaaaaa-1", "aaaaaaaa", "clips/common_voice_de_1.mp3")
        assert utterance.metadata == {"language": "de", "age_group": "fourties", "gender": "f", "accent": "austria"}

    @pytest.mark.parametrize("below", ["", "cv-corpus-6.1-2020-12-11"])
    def test_a_folder_of_languages_or_of_a_release_is_read_whole(self, tmp_path, below):
        german(tmp_path / below)
        write_language(tmp_path / below, "fy-NL", rows_of(CLEO, "fy-NL", 1))
        (tmp_path / below / "notes").mkdir()
        train = common_voice.find_utterances(tmp_path, "").train
        assert {(u.spk_id, u.metadata["language"]) for u in train} == {
            ("aaaaaaaa", "de"),
            ("bbbbbbbb", "de"),
            ("cccccccc", "fy-NL"),
        }
        assert all((tmp_path / u.path).is_file() for u in train)

    def test_the_subsets_for_speech_recognition_add_nothing(self, tmp_path):
        german(tmp_path)
        for name in ("train.tsv", "dev.tsv", "test.tsv", "other.tsv"):
            write_language(tmp_path, "de", rows_of(CLEO, "de", 1, first=9), name)
        corpus = common_voice.find_utterances(tmp_path, "")
        assert {u.spk_id for u in corpus.train} == {"aaaaaaaa", "bbbbbbbb"} and corpus.test == []

    def test_columns_of_later_releases_are_read(self, tmp_path):
        later = row(ANNA, "common_voice_de_1.mp3", gender="male_masculine", sentence_id="1", variant="", accents="Bern")
        del later["accent"]
        folder = write_language(tmp_path, "de", [later])
        assert common_voice.find_utterances(folder, "").train[0].metadata["accent"] == "Bern"
        assert common_voice.find_utterances(folder, "").train[0].metadata["gender"] == "m"

    def test_without_a_locale_the_folder_names_the_language(self, tmp_path):
        rows = [{key: value for key, value in item.items() if key != "locale"} for item in rows_of(ANNA, "de", 1)]
        folder = write_language(tmp_path, "de", rows)
        assert common_voice.find_utterances(folder, "").train[0].metadata["language"] == "de"


class TestSpeakers:
    def test_a_client_id_in_two_languages_is_one_speaker(self, tmp_path):
        german(tmp_path)
        write_language(tmp_path, "en", rows_of(ANNA, "en", 2))
        train = common_voice.find_utterances(tmp_path, "").train
        assert [u.metadata["language"] for u in train if u.spk_id == "aaaaaaaa"] == ["de", "de", "en", "en"]

    def test_ids_are_as_long_as_it_takes_to_tell_them_apart(self, tmp_path):
        similar = ANNA[:10] + "1" * 118
        folder = write_language(tmp_path, "de", [*rows_of(ANNA, "de", 1), *rows_of(similar, "de", 1, first=1)])
        assert [u.spk_id for u in common_voice.find_utterances(folder, "").train] == ["aaaaaaaa000", "aaaaaaaa001"]


class TestVotes:
    def test_clips_with_more_down_than_up_votes_are_left_out_and_counted(self, tmp_path, caplog):
        voted = [("2", "3"), ("2", "2"), ("0", "1")]
        outvoted = [
            row(CLEO, f"common_voice_de_{i}.mp3", up_votes=up, down_votes=down)
            for i, (up, down) in enumerate(voted, start=5)
        ]
        write_language(tmp_path, "de", [*rows_of(ANNA, "de", 2), *rows_of(BERT, "de", 2, first=2), *outvoted])
        record = prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")
        assert record["num_skipped"] == 2 and "2 with more down-votes" in caplog.text
        skipped = pd.read_csv(tmp_path / "m" / "skipped.csv")
        assert skipped["file"].tolist() == [f"de/clips/common_voice_de_{i}.mp3" for i in (5, 7)]
        assert set(skipped["reason"]) == {"more down-votes than up-votes"}

    def test_votes_that_are_no_numbers_are_refused_by_line(self, tmp_path):
        write_language(tmp_path, "de", [*rows_of(ANNA, "de", 1), row(BERT, "common_voice_de_9.mp3", up_votes="x")])
        with pytest.raises(InputError, match=r"validated\.tsv, line 3: .*up_votes.*'x'"):
            common_voice.find_utterances(tmp_path, "")


class TestTable:
    def test_quotes_and_tabs_in_sentences_are_text(self, tmp_path):
        sentences = ['"Halt', 'er rief "Ja"', "a\tb", '"', "a\u2028b\x85c\x0bd"]
        names = [f"common_voice_de_{i}.mp3" for i in range(len(sentences))]
        rows = [
            row(ANNA, name, sentence=sentence, age="teens") for name, sentence in zip(names, sentences, strict=True)
        ]
        train = common_voice.find_utterances(write_language(tmp_path, "de", rows), "").train
        assert [u.path for u in train] == [f"clips/{name}" for name in names]
        assert {(u.metadata["age_group"], u.metadata["language"]) for u in train} == {("teens", "de")}

    def test_windows_line_ends_and_a_byte_order_mark_are_read(self, tmp_path):
        table = german(tmp_path) / "validated.tsv"
        table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
        assert len(common_voice.find_utterances(tmp_path, "").train) == 3

    def test_a_row_that_is_too_short_is_refused_by_line(self, tmp_path):
        with open(german(tmp_path) / "validated.tsv", "a") as table:
            table.write(f"{CLEO}\tcommon_voice_de_0.mp3\n")
        with pytest.raises(InputError, match=r"validated\.tsv, line 5: expected 10 fields, found 2"):
            common_voice.find_utterances(tmp_path, "")

    def test_a_row_without_a_client_id_is_refused_by_line(self, tmp_path):
        write_language(tmp_path, "de", rows_of("", "de", 1))
        with pytest.raises(InputError, match=r"validated\.tsv, line 2: .*client_id"):
            common_voice.find_utterances(tmp_path, "")

    def test_a_table_of_other_columns_is_refused_naming_those_missing(self, tmp_path):
        table = german(tmp_path) / "validated.tsv"
        table.write_text("speaker\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\n")
        with pytest.raises(
            InputError, match=r"de/validated\.tsv: expected the columns.*; client_id missing in: speaker"
        ):
            common_voice.find_utterances(tmp_path, "")

    def test_an_empty_table_is_refused_by_name(self, tmp_path):
        table = german(tmp_path) / "validated.tsv"
        header = "\t".join(HEADER)
        for text, found in (("", "an empty file"), (header, "a header only"), (f"{header}\n\n", "a header only")):
            table.write_text(text)
            with pytest.raises(InputError, match=rf"de/validated\.tsv: expected .*{found}"):
                common_voice.find_utterances(tmp_path, "")

    def test_a_table_that_is_not_utf8_is_refused_by_name(self, tmp_path):
        with open(german(tmp_path) / "validated.tsv", "ab") as table:
            table.write("später".encode("latin-1"))
        with pytest.raises(InputError, match=r"de/validated\.tsv.*UTF-8"):
            common_voice.find_utterances(tmp_path, "")

    def test_a_clip_listed_twice_is_refused_by_name(self, tmp_path):
        write_language(tmp_path, "de", [*rows_of(ANNA, "de", 2), *rows_of(BERT, "de", 2)])
        with pytest.raises(InputError, match="common_voice_de_0"):
            prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")


class TestFolders:
    def test_a_folder_without_any_table_is_refused_naming_it(self, tmp_path):
        (tmp_path / "notes").mkdir()
        with pytest.raises(InputError, match=rf"{tmp_path}: expected validated\.tsv or <language>/validated\.tsv"):
            common_voice.find_utterances(tmp_path, "")

    @pytest.mark.parametrize("data_folder", [".", "de"])
    def test_a_language_without_validated_tsv_is_refused_by_its_path(self, tmp_path, data_folder):
        (german(tmp_path) / "validated.tsv").rename(tmp_path / "de" / "train.tsv")
        write_language(tmp_path, "en", rows_of(CLEO, "en", 1))
        with pytest.raises(InputError, match=r"de/validated\.tsv: missing"):
            common_voice.find_utterances(tmp_path / data_folder, "")

    def test_a_language_without_clips_is_refused_by_its_path(self, tmp_path):
        (german(tmp_path) / "clips").rename(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="de/clips"):
            common_voice.find_utterances(tmp_path, "")

    def test_two_releases_are_refused_by_name(self, tmp_path):
        for release in ("cv-corpus-6.1", "cv-corpus-7.0"):
            german(tmp_path / release)
        with pytest.raises(InputError, match=r"cv-corpus-6\.1, cv-corpus-7\.0"):
            common_voice.find_utterances(tmp_path, "")

    def test_a_trial_list_is_refused_by_name(self, tmp_path):
        german(tmp_path)
        with pytest.raises(InputError, match="trials.csv"):
            common_voice.find_utterances(tmp_path, "trials.csv")


def hundred_clips(root: Path) -> Path:
    """Write 100 clips of two speakers and return the folder of the clips."""
    return write_language(root, "de", [*rows_of(ANNA, "de", 50), *rows_of(BERT, "de", 50, first=50)]) / "clips"


class TestClips:
    def test_a_missing_clip_is_counted_and_listed(self, tmp_path, caplog):
        (hundred_clips(tmp_path) / "common_voice_de_7.mp3").unlink()
        record = prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")
        assert record["num_skipped"] == 1 and "1 missing" in caplog.text
        skipped = pd.read_csv(tmp_path / "m" / "skipped.csv")
        assert skipped["file"].tolist() == ["de/clips/common_voice_de_7.mp3"]
        assert skipped["reason"][0].startswith("missing")
        assert len(read_manifest(tmp_path / "m" / "train.csv")) == 99

    def test_more_than_one_per_cent_of_missing_clips_is_an_error_naming_the_first(self, tmp_path):
        clips = hundred_clips(tmp_path)
        for number in (7, 9):
            (clips / f"common_voice_de_{number}.mp3").unlink()
        with pytest.raises(InputError, match="2 of 100 clips.*missing.*de/clips/common_voice_de_7.mp3"):
            prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")

    def test_a_missing_clip_that_came_back_is_used(self, tmp_path):
        clip = hundred_clips(tmp_path) / "common_voice_de_7.mp3"
        clip.rename(tmp_path / "aside")
        prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")
        (tmp_path / "aside").rename(clip)
        assert prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")["num_skipped"] == 0

    @pytest.mark.parametrize("content", [b"<html>404 Not Found</html>" * 9, b"", "cut"], ids=["text", "empty", "cut"])
    def test_an_mp3_that_cannot_be_decoded_is_skipped_and_listed(self, tmp_path, content):
        clip = hundred_clips(tmp_path) / "common_voice_de_7.mp3"
        if content == "cut":
            soundfile.write(clip, np.random.default_rng(0).uniform(-0.5, 0.5, 48000), 48000)
            content = clip.read_bytes()[:4000]
        clip.write_bytes(content)
        record = prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")
        assert record["num_skipped"] == 1
        assert pd.read_csv(tmp_path / "m" / "skipped.csv")["file"].tolist() == ["de/clips/common_voice_de_7.mp3"]

    def test_more_than_one_per_cent_of_bad_mp3s_is_an_error_naming_the_first(self, tmp_path):
        clips = hundred_clips(tmp_path)
        for number in (7, 9):
            (clips / f"common_voice_de_{number}.mp3").write_bytes(b"no audio" * 99)
        with pytest.raises(InputError, match="2 of 100 files.*de/clips/common_voice_de_7.mp3: .*unreadable"):
            prepare(settings(tmp_path, valid_speakers=0), tmp_path / "m")


def test_two_preparations_write_the_same_bytes(tmp_path):
    german(tmp_path / "c")
    write_language(tmp_path / "c", "en", rows_of(CLEO, "en", 2) + rows_of("d" * 128, "en", 2, first=2))
    names = ("train.csv", "valid.csv", "valid_trials.csv")
    for name in ("one", "two"):
        prepare(settings(tmp_path / "c", valid_speakers=2), tmp_path / name)
    one, two = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("one", "two"))
    assert one == two
