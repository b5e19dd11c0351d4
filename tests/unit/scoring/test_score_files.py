"""Scores of trials, and score files in every form, with their faults."""

import gzip
import re
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings

from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring import score_files as trial_scores
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.score_files import read_scores, write_scores
from voice_biometrics.scoring.scored_trials import trial_keys, without_repeated

HEADER = "enrol_id,test_id,target,score\n"
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PAIRS = st.tuples(IDS, IDS).filter(lambda pair: pair[0] != pair[1])  # self trials are refused
ANY_SCORES = st.dictionaries(PAIRS, st.tuples(st.integers(0, 1), FINITE), min_size=2, max_size=12).filter(
    lambda trials: len({target for target, _ in trials.values()}) == 2
)


def as_table(trials):
    rows = [(*pair, *scored) for pair, scored in trials.items()]
    return pd.DataFrame(rows, columns=trial_scores.COLUMNS)


def as_rows(scores):
    return scores[trial_scores.COLUMNS].to_numpy().tolist()


def test_scores_are_the_cosines_of_the_named_utterances():
    embeddings = np.array([[1.0, 0], [0, 2], [3, 3]], dtype=np.float32)
    trials = pd.DataFrame({"enrol_id": ["a", "c"], "test_id": ["b", "a"], "target": [0, 1]})
    scores = score_trials(embeddings, pd.Index(["a", "b", "c"]), trials)
    np.testing.assert_allclose(scores["score"], [0, np.sqrt(0.5)], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(ANY_SCORES, st.sampled_from(["s.csv", "s.csv.gz", "s.parquet"]))
@example({("a,b", 'say "c"'): (1, 0.1), (" a ", "#"): (0, 5e-324), ("NA", "nan"): (0, -1.7e308)}, "s.csv")
def test_what_is_written_is_read_at_full_precision_in_every_format(tmp_path_factory, trials, name):
    path = tmp_path_factory.mktemp("scores") / name
    write_scores(as_table(trials), path)
    read = read_scores(path)
    assert as_rows(read) == as_rows(as_table(trials))
    assert read["enrol_id"].dtype == read["test_id"].dtype
    again = path.with_name(f"again_{name}")
    write_scores(as_table(trials), again)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(ANY_SCORES, st.randoms(use_true_random=False), st.data())
def test_line_ends_marks_blank_lines_and_order_change_nothing(tmp_path_factory, trials, random, data):
    path = tmp_path_factory.mktemp("scores") / "s.csv"
    write_scores(as_table(trials), path)
    plain = read_scores(path)
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    random.shuffle(lines)
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = [line + end * data.draw(st.integers(1, 2)) for line in ["enrol_id, test_id ,target,score", *lines]]
    content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + "".join(lines).encode()
    path.write_bytes(content)
    assert sorted(as_rows(read_scores(path))) == sorted(as_rows(plain))
    (path.parent / "s.csv.gz").write_bytes(gzip.compress(content))
    assert as_rows(read_scores(path.parent / "s.csv.gz")) == as_rows(read_scores(path))


def test_labels_may_be_numbers_or_words(tmp_path):
    labels = ["target", "nontarget", "True", "False", "1", " 0", "Target", "NONTARGET"]
    lines = [f"a,b{number},{label}, 1e-3 \n" for number, label in enumerate(labels)]
    (tmp_path / "s.csv").write_text(HEADER + "".join(lines))
    assert [row[2:] for row in as_rows(read_scores(tmp_path / "s.csv"))] == [[1, 0.001], [0, 0.001]] * 4


def test_parquet_columns_may_have_any_fitting_type(tmp_path):
    for enrol, target, score in [
        ([17, 18], [True, False], np.array([0.5, 0.25], np.float32)),
        (pd.Categorical(["17", "18"]), [1.0, 0.0], [0.5, 0.25]),
        (["17", "18"], ["target", "nontarget"], ["0.5", "0.25"]),
        (["17", "18"], pd.array([1, 0], "Int64"), pd.array([0.5, 0.25], "Float64")),
    ]:  # fmt: skip
        table = pd.DataFrame({"score": score, "target": target, "note": "x", "test_id": ["a", "b"], "enrol_id": enrol})
        table.to_parquet(tmp_path / "s.parquet")
        assert as_rows(read_scores(tmp_path / "s.parquet")) == [["17", "a", 1, 0.5], ["18", "b", 0, 0.25]]


def test_reading_in_small_blocks_makes_no_difference(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pairs = [f"utt{number}" for number in rng.permutation(3000)]
    scores = pd.DataFrame({"enrol_id": pairs, "test_id": pairs[::-1], "target": 1, "score": rng.normal(size=3000)})
    scores.loc[::3, "target"] = 0
    monkeypatch.setattr(trial_scores, "BYTES_PER_BLOCK", 1000)
    for name in ("s.csv", "s.csv.gz", "s.parquet"):
        write_scores(scores, tmp_path / name)
        assert as_rows(read_scores(tmp_path / name)) == as_rows(scores)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    lines[2000] = lines[2000].rsplit(",", 1)[0] + ",much"
    (tmp_path / "s.csv").write_text("\n\n".join(lines))  # blank lines count as lines
    with pytest.raises(InputError, match="line 4001: .*'much'"):
        read_scores(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("\n\n".join(lines).replace("much", "nan"))  # blank lines count as lines
    with pytest.raises(InputError, match="line 4001: .*finite number as score, found nan"):
        read_scores(tmp_path / "s.csv")


def test_a_repeated_trial_is_counted_and_kept_once_but_its_mirror_image_is_another(tmp_path, capsys):
    text = f"{HEADER}a,b,1,0.5\nb,a,1,0.6\na,c,0,0.1\na,b,1,0.5\na,b,1,0.50\n"
    (tmp_path / "s.csv").write_text(text)
    assert as_rows(read_scores(tmp_path / "s.csv")) == [["a", "b", 1, 0.5], ["b", "a", 1, 0.6], ["a", "c", 0, 0.1]]
    assert "s.csv: 2 repeated" in capsys.readouterr().out
    (tmp_path / "s.csv").write_text(text.replace("0.50", "0.7"))
    with pytest.raises(InputError, match=r"trial a b .* 0.5 .*line 2 and 0.7 .*line 6 \(1 such\)"):
        read_scores(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text(text.replace("a,b,1,0.50", "a,c,1,0.1"))
    with pytest.raises(InputError, match=r"trial a c .*target 0.*line 4 .*target 1.*line 6"):
        read_scores(tmp_path / "s.csv")


def test_repeated_trials_of_a_table_are_told_by_their_number(capsys):
    table = pd.DataFrame([("a", "b", 1, 0.5), ("a", "c", 0, 0.1), ("a", "b", 1, 0.5)], columns=trial_scores.COLUMNS)
    assert as_rows(without_repeated(table, "A")) == [["a", "b", 1, 0.5], ["a", "c", 0, 0.1]]
    assert "A: 1 repeated" in capsys.readouterr().out
    with pytest.raises(InputError, match="in trial 1 and 0.9 .* in trial 3"):
        without_repeated(table.assign(score=[0.5, 0.1, 0.9]), "A")


def test_keys_are_those_of_the_pairs_in_every_table():
    first = pd.DataFrame({"enrol_id": ["a", "a", "b"], "test_id": ["b", "c", "a"]})
    second = pd.DataFrame({"enrol_id": ["b", "d", "a"], "test_id": ["a", "a", "b"]}).astype("category")
    keys, other = trial_keys([first, second])
    assert len(set(keys)) == 3 and keys[[2, 0]].tolist() == other[[0, 2]].tolist() and other[1] not in keys


FAULTS = [
    (f"{HEADER}a,b,1,0.5\na,c,0,nan\n", "line 3: .*finite number as score, found nan"),
    (f"{HEADER}a,b,1,inf\na,c,0,0\n", "line 2: .*finite"),
    (f"{HEADER}a,b,1,0.5\n\na,c,0,\n", "line 4: .*score"),
    (f"{HEADER}a,b,1,0.5\na,c,0,1_0\n", "line 3: .*1_0"),
    (f"{HEADER}a,b,1,0.5\na,c,x,0.1\n", "line 3: .*0 or 1 .*found 'x'"),
    (f"{HEADER}a,b,1,0.5\na,c,,0.1\n", "line 3: .*0 or 1 .*found ''"),
    (f"{HEADER}a,b,1,0.5\n,c,0,0.1\n", "line 3: .*utterance ID as enrol_id, found ''"),
    (f"{HEADER}a,b,1,0.5\na,c,0\n", "line 3: .*4 fields, found 3: .a,c,0"),
    ("enrol_id,test_id,score\na,b,0.5\n", "label beside 'a b 0.5'.*--trials"),
    ("speaker,file,duration\na,b,long\n", "found 'speaker,file,duration'.*would do: 'anna/1.wav"),
    ("a b 1 0\na c 0 1\n", "found 'a b 1 0'.*would do"),  # which is the score?
    ("a b target 0.5\na c nontarget 0.1\na d maybe 0.2\n", "line 3: .*found 'maybe'"),
    ("a b 0.5 1\na d 0.2 0\na c 0.1\n", "line 3: .*found ''"),
    ("enrol_id,test_id,target,score,score\na,b,1,0.5,0.5\n", "score twice"),
    (HEADER, "0 and 0"),
    ("", "nothing"),
    (f"{HEADER}a,b,1,0.5\na,\xe9,0,0.1\n", "UTF8"),
]


def test_a_fault_of_a_score_file_is_named(tmp_path):
    for text, found in FAULTS:
        for name, opened in (("s.csv", open), ("s.csv.gz", gzip.open)):
            with opened(tmp_path / name, "wb") as file:
                file.write(text.encode("latin-1"))
            with pytest.raises(InputError, match=f"{name}.*{found}"):
                read_scores(tmp_path / name)


def test_a_fault_of_a_parquet_file_is_named(tmp_path):
    for columns, found in [
        ({"score": [0.5, np.nan]}, "row 2: .*finite number as score, found (None|nan)"),
        ({"score": ["0.5", "high"]}, "'high'"),
        ({"target": [1, None]}, "row 2: .*0 or 1 .*found (None|nan)"),
        ({"test_id": ["b", None]}, "row 2: .*utterance ID as test_id, found None"),
        ({"score": [pd.Timestamp(0), pd.Timestamp(1)]}, "expected Parquet with the columns"),
    ]:  # fmt: skip
        sound = {"enrol_id": ["a", "a"], "test_id": ["b", "c"], "target": [1, 0], "score": [0.5, 0.1]}
        pd.DataFrame(sound | columns).to_parquet(tmp_path / "s.parquet")
        with pytest.raises(InputError, match=found):
            read_scores(tmp_path / "s.parquet")


def test_a_file_that_is_not_what_its_name_says_is_told(tmp_path):
    for name, found in (("s.parquet", "expected Parquet"), ("s.csv.gz", "expected CSV")):
        (tmp_path / name).write_text(f"{HEADER}a,b,1,0.5\na,c,0,0.1\n")
        with pytest.raises(InputError, match=found):
            read_scores(tmp_path / name)
    whole = gzip.compress((HEADER + "".join(f"a,b{n},{n % 2},0.{n}\n" for n in range(5000))).encode())
    (tmp_path / "s.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="expected CSV"):
        read_scores(tmp_path / "s.csv.gz")
    with pytest.raises(InputError, match="other.csv"):
        read_scores(tmp_path / "other.csv")


SAME_SCORES = {
    "WeSpeaker": "a/1.wav b/1.wav 0.5 target\na/1.wav c/1.wav -0.25 nontarget\n",
    "SpeechBrain": "a/1.wav b/1.wav 1 0.500000\na/1.wav c/1.wav 0 -0.250000\n",
    "label first": "1 0.5 a/1.wav b/1.wav\n0 -0.25 a/1.wav c/1.wav\n",
    "score first": "5e-1\ta/1.wav\tb/1.wav\ttgt\n-2.5e-1\ta/1.wav\tc/1.wav\timp\n",
    "words": "genuine a/1.wav b/1.wav 0.5\nimpostor a/1.wav c/1.wav -0.25\n",
    "CSV with another header": "file 1,file 2,same,similarity\na/1.wav,b/1.wav,1.0,0.5\na/1.wav,c/1.wav,0.0,-0.25\n",
    "our header with tabs": "enrol_id\ttest_id\ttarget\tscore\na/1.wav\tb/1.wav\t1\t0.5\na/1.wav\tc/1.wav\t0\t-0.25\n",
    "semicolons": "a/1.wav;b/1.wav;1;0.5\na/1.wav;c/1.wav;0;-0.25\n",
    "Windows": "./a\\1.wav .\\b\\1.wav 1 0.5\r\n\r\n./a\\1.wav .\\c\\1.wav 0 -0.25\r\n",
    "ours": f"{HEADER}a/1.wav,b/1.wav,tgt,0.5\na/1.wav,c/1.wav,imp,-0.25\n",
}


def test_scores_of_other_tools_are_read_whatever_the_order_of_their_columns(tmp_path):
    for text in SAME_SCORES.values():
        (tmp_path / "scores.txt").write_text(text)
        assert as_rows(read_scores(tmp_path / "scores.txt")) == [
            ["a/1.wav", "b/1.wav", 1, 0.5], ["a/1.wav", "c/1.wav", 0, -0.25],
        ]  # fmt: skip


def test_utterances_called_by_numbers_are_not_taken_for_scores(tmp_path):
    (tmp_path / "s.txt").write_text("1001 1002 0.5 1\n1001 1003 -0.25 0\n")
    assert as_rows(read_scores(tmp_path / "s.txt")) == [["1001", "1002", 1, 0.5], ["1001", "1003", 0, -0.25]]


def test_labels_in_another_file_are_joined_by_pair(tmp_path):
    for scores, trials in [  # Kaldi's, VoxSRC's, with absolute paths on one side, without suffix, with headers
        ("a/1.wav c/1.wav -0.25\na/1.wav b/1.wav 0.5\n", "a/1.wav b/1.wav target\na/1.wav c/1.wav nontarget\n"),
        ("-0.25 a/1.wav c/1.wav\n0.5 a/1.wav b/1.wav\n", "1 a/1.wav b/1.wav\n0 a/1.wav c/1.wav\n"),
        ("/x/y/a/1.wav /x/y/c/1.wav -0.25\n/x/y/a/1.wav /x/y/b/1.wav 0.5\n", "1 a/1.wav b/1.wav\n0 a/1.wav c/1.wav\n"),
        ("a/1 c/1 -0.25\na/1 b/1 0.5\na/1 b/1 0.5\n", "1 /x/a/1.wav /x/b/1.wav\n0 /x/a/1.wav /x/c/1.wav\n"),
        ("enrol_id,test_id,score\na/1.wav,c/1.wav,-0.25\na/1.wav,b/1.wav,0.5\n",
         "enrol_id,test_id,target\na/1.wav,b/1.wav,1\na/1.wav,c/1.wav,0\n"),
    ]:  # fmt: skip
        (tmp_path / "s.txt").write_text(scores)
        (tmp_path / "t.txt").write_text(trials)
        assert [row[2:] for row in as_rows(read_scores(tmp_path / "s.txt", tmp_path / "t.txt"))] == [
            [1, 0.5],
            [0, -0.25],
        ]


def test_labels_in_both_files_must_be_equal(tmp_path):
    scores, trials = tmp_path / "s.csv", tmp_path / "t.txt"
    scores.write_text(f"{HEADER}a,b,1,0.5\na,c,0,0.25\na,d,1,0.1\n")
    for text, found in [
        ("1 a b\n0 a c\n0 a d\n", "s.csv, line 4: a d has another label than in .*t.txt .1 such"),
        ("1 a b\n0 a c\n", "s.csv, line 4: a d is not a trial of .*t.txt"),
    ]:
        trials.write_text(text)
        with pytest.raises(InputError, match=found):
            read_scores(scores, trials)
    trials.write_text("target a d\ntarget a b\nnontarget a c\n")
    assert as_rows(read_scores(scores, trials)) == as_rows(read_scores(scores))


def test_a_trial_of_an_utterance_with_itself_is_named_by_its_line(tmp_path):
    for text in (f"{HEADER}a,b,1,0.5\nc,c,1,1.0\na,c,0,0.25\n", "\na b 1 0.5\nc c 1 0.9\na c 0 0.25\n"[1:]):
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(InputError, match=f"line {3 if HEADER in text else 2}: expected two utterances, found c"):
            read_scores(tmp_path / "s.csv")


def test_a_first_trial_without_a_score_is_no_header(tmp_path):
    for text in ("a b NA 1\na c 0.5 0\na d 0.7 1\n", "a b NA\na c 0.5\na d 0.7\n"):
        (tmp_path / "s.txt").write_text(text)
        (tmp_path / "t.txt").write_text("1 a b\n0 a c\n1 a d\n")
        with pytest.raises(InputError, match="s.txt, line 1: expected a finite number as score"):
            read_scores(tmp_path / "s.txt", None if "NA 1" in text else tmp_path / "t.txt")


def test_pairs_of_one_file_only_and_pairs_scored_twice_are_named(tmp_path):
    trials = tmp_path / "t.txt"
    trials.write_text("1 a b\n0 a c\n0 a d\n")
    for text, found in [
        ("a b 0.5\na c 0.25\n", "t.txt, line 3: a d has no score in .*s.txt .1 such"),
        ("a b 0.5\na c 0.25\na d 0.1\nx y 0.1\n", "s.txt, line 4: x y is not a trial of .*t.txt"),
        ("a b 0.5\na c 0.25\na d 0.1\na b 0.7\n", "s.txt, line 4: a b is scored twice"),
        ("a b 0.5\na c much\na d 0.1\n", "s.txt, line 2: .*finite number as score"),
    ]:
        (tmp_path / "s.txt").write_text(text)
        with pytest.raises(InputError, match=found):
            read_scores(tmp_path / "s.txt", trials)


def test_a_score_far_from_all_others_is_named_by_its_line(tmp_path):
    for lowest in [-9999.0, 1e9]:
        rng = np.random.default_rng(0)
        pairs = {"enrol_id": [f"a{n}" for n in range(400)], "test_id": "b", "target": np.arange(400) % 2}
        scores = pd.DataFrame(pairs).assign(score=rng.normal(size=400) + 2.0 * (np.arange(400) % 2))
        write_scores(scores, tmp_path / "s.csv")
        assert len(read_scores(tmp_path / "s.csv")) == 400
        scores.loc[[20, 31], "score"] = lowest
        write_scores(scores, tmp_path / "s.csv")
        with pytest.raises(
            InputError, match=rf"line 22: score {re.escape(format(lowest, 'g'))} is far from all others .*2 such"
        ):
            read_scores(tmp_path / "s.csv")
    scores.loc[[20, 31], "score"] = [-9999.0, 9999.0]  # at both ends
    write_scores(scores, tmp_path / "s.csv")
    with pytest.raises(InputError, match="line 22: score -9999 is far from all others"):
        read_scores(tmp_path / "s.csv")


def test_a_single_target_far_above_the_rest_is_no_fault(tmp_path):
    scores = pd.DataFrame({"enrol_id": [f"a{n}" for n in range(400)], "test_id": "b", "target": 0, "score": 0.0})
    scores.loc[7, ["target", "score"]] = 1, 1.0
    write_scores(scores, tmp_path / "s.csv")
    assert len(read_scores(tmp_path / "s.csv")) == 400


READ_BAD_FILES = """
import sys
from pathlib import Path
from voice_biometrics.common.errors import InputError
from voice_biometrics.scoring.score_files import read_scores
for path in map(Path, 20 * sys.argv[1:]):
    try:
        read_scores(path)
    except InputError:
        pass
"""


def test_reading_bad_files_again_and_again_leaves_no_thread_that_aborts_the_process(tmp_path, monkeypatch):
    good = "enrol_id,test_id,target,score\n" + "".join(f"a{i},b{i},{i % 2},{i}\n" for i in range(30_000))
    contents = {"words.csv": good.replace(",15000\n", ",x\n"), "short.csv": good + "a,b\n", "latin.csv": "\xe9,b\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="latin-1")
    command = [sys.executable, "-c", READ_BAD_FILES, *map(str, sorted(tmp_path.iterdir()))]
    assert [subprocess.run(command).returncode for _ in range(2)] == [0, 0]
    monkeypatch.setattr("pyarrow.csv.open_csv", None)  # its thread is what aborted
    with pytest.raises(InputError, match="words.csv"):
        read_scores(tmp_path / "words.csv")


@pytest.mark.parametrize("cut", [30, 200, -5])
def test_a_gzipped_file_that_lost_its_end_is_told(tmp_path, cut):
    text = "enrol_id,test_id,target,score\n" + "".join(f"a{i},b{i},{i % 2},{i / 7}\n" for i in range(500))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:cut])
    with pytest.raises(InputError, match="a.csv.gz"):
        read_scores(tmp_path / "a.csv.gz")
