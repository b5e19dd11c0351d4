"""Scores of trials, and score files with their faults."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.errors import InputError
from voice_biometrics.trial_scores import read_scores, score_trials, write_scores


def test_scores_are_the_cosines_of_the_named_utterances():
    embeddings = np.array([[1.0, 0], [0, 2], [3, 3]], dtype=np.float32)
    trials = pd.DataFrame({"enrol_id": ["a", "c"], "test_id": ["b", "a"], "target": [0, 1]})
    scores = score_trials(embeddings, pd.Index(["a", "b", "c"]), trials)
    np.testing.assert_allclose(scores["score"], [0, np.sqrt(0.5)], atol=1e-6)


def test_score_files_read_back_at_full_precision(tmp_path):
    scores = pd.DataFrame({"enrol_id": ["a", "NA"], "test_id": ["b", "c"], "target": [1, 0], "score": [1 / 3, -1e-17]})
    write_scores(scores, tmp_path / "s.csv")
    assert read_scores(tmp_path / "s.csv").to_numpy().tolist() == scores.to_numpy().tolist()


@pytest.mark.parametrize(
    "text, found",
    [
        ("enrol_id,test_id,target,score\na,b,1,0.5\na,c,0,nan\n", "line 3.*finite"),
        ("enrol_id,test_id,target,score\na,b,1,inf\na,c,0,0\n", "line 2.*finite"),
        ("enrol_id,test_id,target,score\na,b,1,0.5\na,c,0,\n", "line 3"),
        ("enrol_id,test_id,target,score\na,b,1,0.5\na,c,x,0.1\n", "line 3.*0 or 1"),
        ("enrol_id,test_id,score\na,b,0.5\n", "target missing"),
        ("enrol_id,test_id,target,score\na,b,1,0.5\n", "1 and 0"),
        ("", "expected a CSV"),
    ],
)
def test_a_fault_of_a_score_file_is_named(tmp_path, text, found):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=found):
        read_scores(tmp_path / "s.csv")
