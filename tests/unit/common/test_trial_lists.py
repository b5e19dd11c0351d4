"""Trial lists: the forms that are read, the faults that are named, and the pairs that are made."""

import gzip

import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import check_speakers, make_trials, read_trials, resolve_trials, write_trials

GOOD = [
    ("ours", "enrol_id,test_id,target\na,b,1\na,c,0\n"),
    ("the original project's", "path1, path2, label\na, b, 1\na, c, 0\n"),
    ("CSV without header", "a,b,1\na,c,0\n"),
    ("VoxCeleb's", "1 a b\n0 a c\n"),
    ("Windows line ends and a blank line", "a,b,1\r\n\r\na,c,0\r\n"),
    ("a word as label, without header", "a,b,target\na,c,nontarget\n"),
    ("a word as label, with header", "enrol_id,test_id,target\na,b,target\na,c,nontarget\n"),
    ("NIST's", "modelid\tsegmentid\ttargettype\na\tb\ttarget\na\tc\tnontarget\n"),
    ("semicolons", "path1;path2;label\na;b;1\na;c;0\n"),
    ("CSV with the label first", "label,file1,file2\n1,a,b\n0,a,c\n"),
    ("byte-order mark", "\ufeffenrol_id,test_id,target\na,b,1\na,c,0\n"),
]


@pytest.mark.parametrize("text", [text for _, text in GOOD], ids=[name for name, _ in GOOD])
def test_each_form_gives_the_same_trials(tmp_path, text):
    (tmp_path / "list").write_bytes(text.encode())
    assert read_trials(tmp_path / "list").to_numpy().tolist() == [["a", "b", 1], ["a", "c", 0]]


def test_decomposed_names_are_composed(tmp_path):
    (tmp_path / "list").write_text("1 Jose\u0301/1.wav Jos\u00e9/2.wav\n0 Jose\u0301/1.wav b\n")
    trials = resolve_trials(read_trials(tmp_path / "list"), pd.Index(["Jos\u00e9/1", "Jos\u00e9/2", "b"]), "list")
    assert trials["enrol_id"].tolist() == ["Jos\u00e9/1"] * 2


def test_a_gzipped_list_is_read(tmp_path):
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(b"a,b,1\na,c,0\n"))
    assert read_trials(tmp_path / "list.csv.gz")["target"].tolist() == [1, 0]


def test_an_utterance_called_na_stays(tmp_path):
    (tmp_path / "list").write_text("NA,b,1\na,null,0\n")
    assert read_trials(tmp_path / "list")["enrol_id"].tolist() == ["NA", "a"]


@pytest.mark.parametrize(
    "text, found",
    [
        ("a,b,1\na,c\n", "line 2"),
        ("1 a b\n\n0 a\n", "line 3"),
        ("a,b,1\na,c,0,extra\n", "line 2"),
        ("enrol_id,test_id,target\na,b,2\n", "line 2"),
        ("a,b,7\na,c,0\n", "line 1"),  # no header: a label is not swallowed as one
        ("a,b,1\n,c,0\n", "line 2"),
        ("a,b,target\na,c,tarket\n", "line 2"),
        ("", "found nothing"),
        ("a,b,1\na,c,1\n", "2 and 0"),
        ("enrol_id,test_id,target\n", "0 and 0"),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, text, found):
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=found):
        read_trials(tmp_path / "list")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "list").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="UTF-8"):
        read_trials(tmp_path / "list")


def test_written_trials_read_back_equal(tmp_path):
    trials = pd.DataFrame({"enrol_id": ["a", "b,c"], "test_id": ["x y", "d"], "target": [1, 0]})
    write_trials(trials, tmp_path / "list.csv")
    assert read_trials(tmp_path / "list.csv").to_numpy().tolist() == trials.to_numpy().tolist()


def test_paths_become_ids_and_an_unknown_one_is_named_with_its_trial():
    trials = pd.DataFrame({"enrol_id": ["s/1.wav", "s/1"], "test_id": ["s/2", "t/1.wav"], "target": [1, 0]})
    resolved = resolve_trials(trials, pd.Index(["s/1", "s/2", "t/1"]), "list")
    assert resolved[["enrol_id", "test_id"]].to_numpy().tolist() == [["s/1", "s/2"], ["s/1", "t/1"]]
    with pytest.raises(InputError, match="line 1: utterance t/1.wav"):
        resolve_trials(trials, pd.Index(["s/1", "s/2"]), "list")


def utterances(num_speakers: int, num_each: int) -> pd.DataFrame:
    rows = [(f"{speaker}-{number}", speaker) for speaker in "abcdefgh"[:num_speakers] for number in range(num_each)]
    return pd.DataFrame(rows, columns=["ID", "spk_id"])


def test_all_pairs_of_three_speakers_with_two_utterances_are_three_targets_and_twelve_nontargets():
    trials = make_trials(utterances(3, 2), None, seed=0)
    assert (trials["target"].sum(), len(trials)) == (3, 15)
    assert not (trials["enrol_id"] == trials["test_id"]).any()


def test_drawn_trials_are_unique_half_targets_and_the_same_for_the_same_seed():
    drawn = make_trials(utterances(8, 20), 1000, seed=3)
    assert (len(drawn), drawn["target"].sum()) == (1000, 500)
    assert not drawn.duplicated(["enrol_id", "test_id"]).any()
    same_speaker = drawn["enrol_id"].str[0] == drawn["test_id"].str[0]
    assert (same_speaker == (drawn["target"] == 1)).all()
    assert drawn.equals(make_trials(utterances(8, 20), 1000, seed=3))
    assert not drawn.equals(make_trials(utterances(8, 20), 1000, seed=4))


def test_all_targets_are_drawn_where_they_are_fewer_than_half():
    drawn = make_trials(utterances(8, 2), 100, seed=0)
    assert (len(drawn), drawn["target"].sum()) == (100, 8)


@pytest.mark.parametrize("speakers, each", [(1, 5), (4, 1)])
def test_pairs_without_both_kinds_are_refused(speakers, each):
    with pytest.raises(InputError, match="found"):
        make_trials(utterances(speakers, each), None, seed=0)


def test_a_repeated_trial_counts_once_and_is_reported(tmp_path, caplog):
    (tmp_path / "list").write_text("a,b,1\na,c,0\na,b,1\nb,a,1\n")
    assert read_trials(tmp_path / "list").to_numpy().tolist() == [["a", "b", 1], ["a", "c", 0], ["b", "a", 1]]
    assert "1 repeated" in caplog.text


@pytest.mark.parametrize(
    "text, lines", [("a,b,1\na,c,0\na,b,0\n", "lines 1 and 3"), ("a,b,1\nc,c,1\nd,e,0\n", "line 2")]
)
def test_contradicting_and_self_trials_are_refused_with_their_lines(tmp_path, text, lines):
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=lines):
        read_trials(tmp_path / "list")


def test_a_label_that_contradicts_the_speakers_is_refused_with_its_line(tmp_path):
    (tmp_path / "list").write_text("a1,a2,1\n\na1,b1,0\na2,b1,1\n")
    trials = read_trials(tmp_path / "list")
    check_speakers(trials[:2], {"a1": "a", "a2": "a", "b1": "b"}, "list")
    with pytest.raises(InputError, match="list, line 4: .*a2.*b1"):
        check_speakers(trials, {"a1": "a", "a2": "a", "b1": "b"}, "list")


@pytest.mark.parametrize(
    "text",
    [
        "a b target\na c nontarget\n",  # Kaldi
        "a b tgt\na c imp\n",
        "a,b,1.0\na,c,0.0\n",
        "genuine a b\nimpostor a c\n",
        "1 ./a b\n0 ./a .\\c\n",
    ],
)
def test_labels_and_paths_of_other_toolkits_are_read(tmp_path, text):
    (tmp_path / "list").write_text(text)
    assert read_trials(tmp_path / "list").to_numpy().tolist() == [["a", "b", 1], ["a", "c", 0]]


@pytest.mark.parametrize("cut", [12, 100, -5])
def test_a_gzipped_list_that_lost_its_end_is_told(tmp_path, cut):
    text = "".join(f"{i % 2} a{i}.wav b{i * 7919}.wav\n" for i in range(500))
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(text.encode())[:cut])
    with pytest.raises(InputError, match="t.txt.gz"):
        read_trials(tmp_path / "t.txt.gz")
