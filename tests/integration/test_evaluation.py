"""eval_eer.py on score files, from the file to the report, and every bad input by name."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

import eval_eer
from tests.unit.evaluation.test_thresholds import scored_speakers
from voice_biometrics.scoring.score_files import write_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two systems' scores of 12 speakers, another 10 speakers held out, and who is who."""
    folder = tmp_path_factory.mktemp("scores")
    good = scored_speakers(num_speakers=12)
    noise = np.random.default_rng(5).normal(0.0, 0.15, len(good.table))
    held_out = scored_speakers(num_speakers=10, seed=7)
    for column in ("enrol_id", "test_id"):
        held_out.table[column] = "h" + held_out.table[column]
    others = held_out.utterances.assign(ID="h" + held_out.utterances["ID"], spk_id="h" + held_out.utterances["spk_id"])
    write_scores(good.table, folder / "good.csv")
    worse = good.table.assign(score=good.scores + noise).sample(frac=1.0, random_state=0)
    write_scores(worse, folder / "worse.parquet")
    write_scores(held_out.table, folder / "held_out.csv.gz")
    utterances = pd.concat([good.utterances, others])
    utterances["gender"] = np.where(utterances["spk_id"].str[-1].isin(list("02468")), "f", "m")
    utterances.to_csv(folder / "who.csv", index=False)
    return folder


def evaluated(folder, *arguments: str) -> dict:
    eval_eer.main(["--scores", str(folder / "good.csv"), *arguments])
    return json.loads((folder / "good_eval" / "metrics.json").read_text())


def told(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        eval_eer.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") <= 2 and "Traceback" not in error
    return error


def test_a_report_says_what_metrics_json_says_and_needs_no_other_file(folder, capsys):
    metrics = evaluated(folder, "--test_manifest", str(folder / "who.csv"))
    page = (folder / "good_eval" / "report.html").read_text()
    eer = f"{100 * metrics['eer']:.2f} %"
    assert eer in page and eer in (folder / "good_eval" / "report.md").read_text() and eer in capsys.readouterr().out
    assert "same-origin" not in page and not re.findall(r'(?:src|href)="(?!data:|#)', page)
    tables = {table["title"]: table["rows"] for table in metrics["groups"]["tables"]}
    assert [row["name"] for row in tables["gender"]] == ["f", "m"]
    assert metrics["calibration"]["on_these_trials"] is True
    assert metrics["interval"][0] < metrics["eer"] < metrics["interval"][1]
    assert metrics["operating_points"]["smart_speaker"]["far"]["estimate"] <= 0.01


def test_held_out_scores_calibrate_and_the_far_is_measured_on_other_speakers(folder):
    metrics = evaluated(
        folder, "--test_manifest", str(folder / "who.csv"), "--held_out_scores", str(folder / "held_out.csv.gz")
    )
    assert metrics["calibration"]["on_these_trials"] is False
    assert metrics["calibration"]["num_target"] == 10 * 45
    held_out = metrics["held_out_operating_points"]["smart_speaker"]
    test = metrics["operating_points"]["smart_speaker"]
    assert held_out["threshold"] == test["threshold"] and held_out["far"]["estimate"] <= 0.01
    assert held_out["num_nontarget"] != test["num_nontarget"]


def test_speakers_are_known_from_target_trials_without_a_manifest(folder):
    metrics = evaluated(folder)
    assert metrics["num_speakers"] == 12 and "linked" not in metrics["speakers"]
    assert metrics["eer"] == evaluated(folder, "--test_manifest", str(folder / "who.csv"))["eer"]


def test_another_system_on_the_same_trials_is_compared(folder):
    metrics = evaluated(folder, "--against", str(folder / "worse.parquet"))
    eer, *_ = metrics["against"][str(folder / "worse.parquet")]
    assert eer["value_a"] == metrics["eer"] < eer["value_b"]
    assert eer["difference"]["upper"] < 0 and eer["difference"]["p_value"] < 0.05
    assert (folder / "good_eval" / "det_systems.png").is_file()


def test_own_costs_give_a_threshold_and_a_dcf(folder):
    metrics = evaluated(folder, "--custom", "0.2,1,5")
    assert metrics["min_dcf"][-1]["c_fa"] == 5.0 and metrics["act_dcf"][-1]["p_target"] == 0.2
    threshold = metrics["operating_points"]["custom"]["threshold"]
    assert threshold == pytest.approx(np.log(5.0 * 0.8 / 0.2))
    assert metrics["act_dcf"][-1]["threshold"] == pytest.approx(threshold)


def test_too_few_speakers_have_an_eer_but_no_thresholds_and_are_told(folder, capsys):
    few = scored_speakers(num_speakers=4)
    write_scores(few.table, folder / "few.csv")
    eval_eer.main(["--scores", str(folder / "few.csv")])
    assert "no thresholds: 4 speakers" in capsys.readouterr().out
    assert "4 speakers" in (folder / "few_eval" / "report.md").read_text()


def test_gzip_byte_order_mark_and_windows_line_ends_change_nothing(folder):
    text = (folder / "good.csv").read_text()
    with gzip.open(folder / "odd.csv.gz", "wb") as file:
        file.write(("\ufeff" + text.replace("\n", "\r\n")).encode("utf-8"))
    eval_eer.main(["--scores", str(folder / "odd.csv.gz")])
    odd = json.loads((folder / "odd_eval" / "metrics.json").read_text())
    assert odd["eer"] == evaluated(folder)["eer"]


def test_bad_options_are_told_in_a_line(folder, capsys):
    scores = folder / "good.csv"
    assert "three numbers" in told(capsys, "--scores", scores, "--custom", "1,2")
    assert "leave out --corpus demo" in told(capsys, "--scores", scores, "--corpus", "demo")
    assert "missing" in told(capsys, "--scores", folder / "none.csv")
    assert "missing" in told(capsys, "--scores", scores, "--test_manifest", folder / "none.csv")
    assert "expected one argument" in told(capsys, "--scores")
    assert "channel, noise" in told(capsys, "hparams/ecapa_small.yaml", "--condition", "underwater")
    assert "--condition does not go with --scores" in told(capsys, "--scores", scores, "--condition", "short")
    assert "--enrol_with does not go with --scores" in told(capsys, "--scores", scores, "--enrol_with", "3")
    assert "--held_out_scores goes with --scores only" in told(capsys, "--held_out_scores", scores)


def test_held_out_speakers_in_the_trials_are_refused(folder, capsys):
    error = told(capsys, "--scores", folder / "good.csv", "--held_out_scores", folder / "worse.parquet")
    assert "is in the held-out trials and in the trials" in error


def test_systems_with_other_trials_are_refused_with_the_difference(folder, capsys):
    error = told(capsys, "--scores", folder / "good.csv", "--against", folder / "held_out.csv.gz")
    assert "7,140 only in this system" in error and "held_out.csv.gz (such as hs00u0 hs00u1)" in error


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace("score", "value", 1), "score missing"),
        (lambda text: text + "x,y,2,0.5\n", "'2'"),
        (lambda text: text + "x,y,1,nan\n", "finite"),
        (lambda text: text + "x,y,1,inf\n", "finite"),
        (lambda text: text + "x,y,1,\n", "finite"),
        (lambda text: text + "s00u0,s00u1,1,0.123\n", "trial s00u0 s00u1 has the scores"),
        (lambda text: "enrol_id,test_id,target,score\na,b,1,0.5\n", "1 and 0"),
        (lambda text: "", "expected"),
    ],
)
def test_a_faulty_score_file_is_told(folder, capsys, change, expected):
    (folder / "bad.csv").write_text(change((folder / "good.csv").read_text()))
    assert expected in told(capsys, "--scores", folder / "bad.csv")


def test_repeated_trials_that_agree_are_counted_and_told(folder, capsys):
    text = (folder / "good.csv").read_text()
    (folder / "twice.csv").write_text(text + text.split("\n", 2)[1] + "\n")
    eval_eer.main(["--scores", str(folder / "twice.csv")])
    assert "1 trials stand there again" in capsys.readouterr().out
