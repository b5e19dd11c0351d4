"""eval_eer.py on score files: from the file to the report, and bad input is named."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eval_eer
from tests.unit.evaluation.test_thresholds import scored_speakers
from voice_biometrics.scoring.score_files import write_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two systems' scores of 12 speakers, those of 10 held-out speakers, and a manifest."""
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


def evaluated(folder, *arguments: object, scores: str = "good.csv") -> dict:
    eval_eer.main(["--scores", str(folder / scores), *map(str, arguments)])
    return json.loads((folder / f"{scores.split('.')[0]}_eval" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def plain(folder):
    """The figures of the first system by itself."""
    return evaluated(folder)


def told(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        eval_eer.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") <= 2 and "Traceback" not in error
    return error


def test_a_report_with_groups_other_systems_and_own_costs(folder, plain, capsys):
    other = folder / "worse.parquet"
    metrics = evaluated(folder, "--test_manifest", folder / "who.csv", "--against", other, "--custom", "0.2,1,5")
    report = folder / "good_eval"
    page, eer = (report / "report.html").read_text(), f"{100 * metrics['eer']:.2f} %"
    assert eer in page and eer in (report / "report.md").read_text() and eer in capsys.readouterr().out
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    names = {path.stem for path in report.glob("*.png")}
    assert names == {"det", "roc", "scores", "calibration", "groups", "det_systems"}
    assert metrics["eer"] == plain["eer"] and metrics["num_speakers"] == plain["num_speakers"] == 12
    tables = {table["title"]: table["rows"] for table in metrics["groups"]["tables"]}
    assert [row["name"] for row in tables["gender"]] == ["f", "m"]
    assert metrics["calibration"]["on_these_trials"] is True
    assert metrics["interval"][0] < metrics["eer"] < metrics["interval"][1]
    assert metrics["operating_points"]["smart_speaker"]["far"]["estimate"] <= 0.01
    compared, *_ = metrics["against"][str(other)]
    assert compared["value_a"] == metrics["eer"] < compared["value_b"]
    assert compared["difference"]["upper"] < 0 and compared["difference"]["p_value"] < 0.05
    assert metrics["min_dcf"][-1]["c_fa"] == 5.0 and metrics["act_dcf"][-1]["p_target"] == 0.2
    threshold = metrics["operating_points"]["custom"]["threshold"]
    assert threshold == metrics["act_dcf"][-1]["threshold"] == pytest.approx(np.log(5.0 * 0.8 / 0.2))


def test_held_out_scores_calibrate_and_the_far_is_measured_on_other_speakers(folder):
    metrics = evaluated(folder, "--test_manifest", folder / "who.csv", "--held_out_scores", folder / "held_out.csv.gz")
    assert metrics["calibration"]["on_these_trials"] is False and metrics["calibration"]["num_target"] == 10 * 45
    held_out = metrics["held_out_operating_points"]["smart_speaker"]
    test = metrics["operating_points"]["smart_speaker"]
    assert held_out["threshold"] == test["threshold"] and held_out["far"]["estimate"] <= 0.01
    assert held_out["num_nontarget"] != test["num_nontarget"]


def test_too_few_speakers_have_an_eer_but_no_thresholds(folder, capsys):
    write_scores(scored_speakers(num_speakers=4).table, folder / "few.csv")
    metrics = evaluated(folder, scores="few.csv")
    assert "4 speakers" in metrics["not_calibrated"] and "4 speakers" in capsys.readouterr().out
    assert "4 speakers" in (folder / "few_eval" / "report.md").read_text()


def test_gzip_byte_order_mark_windows_line_ends_and_repeated_trials_change_no_figure(folder, plain, capsys):
    text = (folder / "good.csv").read_text()
    with gzip.open(folder / "odd.csv.gz", "wb") as file:
        file.write(("\ufeff" + (text + text.split("\n", 2)[1] + "\n").replace("\n", "\r\n")).encode("utf-8"))
    assert evaluated(folder, scores="odd.csv.gz")["eer"] == plain["eer"]
    assert "odd.csv.gz: 1 " in capsys.readouterr().out


@pytest.mark.parametrize("slope, eer", [(0.0, 0.5), (1.0, 0.0)])
def test_equal_scores_and_binary_decisions_have_a_report(folder, slope, eer):
    table = pd.read_csv(folder / "good.csv")
    table.assign(score=slope * table["target"]).to_csv(folder / "tied.csv", index=False)
    assert evaluated(folder, scores="tied.csv")["eer"] == eer


def test_labels_of_another_file_and_paths_of_another_folder_change_no_figure(folder, plain, capsys):
    table = pd.read_csv(folder / "good.csv")
    paths = table.assign(**{side: "/data/wav/" + table[side] + ".wav" for side in ("enrol_id", "test_id")})
    paths[["target", "enrol_id", "test_id"]].to_csv(folder / "trials.txt", sep=" ", header=False, index=False)
    for name, part in (("s.txt", table), ("other.txt", paths)):
        part = part[["enrol_id", "test_id", "score"]].sample(frac=1.0, random_state=1)
        part.to_csv(folder / name, sep=" ", header=False, index=False)
    options = ["--trials", folder / "trials.txt", "--against", folder / "other.txt"]
    metrics = evaluated(folder, *options, scores="s.txt")
    assert metrics["eer"] == plain["eer"] and metrics["num_speakers"] == 12
    assert metrics["against"][str(folder / "other.txt")][0]["difference"]["estimate"] == 0.0
    assert "of 12 groups linked by target trials" in capsys.readouterr().out
    metrics = evaluated(folder, *options, "--test_manifest", folder / "who.csv", scores="s.txt")
    assert metrics["eer"] == plain["eer"] and metrics["groups"]["tables"]
    assert "of 12 speakers" in capsys.readouterr().out


def test_bad_options_are_named(folder, capsys):
    scores = folder / "good.csv"
    assert "--custom 1,2" in told(capsys, "--scores", scores, "--custom", "1,2")
    assert "--corpus demo" in told(capsys, "--scores", scores, "--corpus", "demo")
    assert "none.csv" in told(capsys, "--scores", folder / "none.csv")
    assert "none.csv" in told(capsys, "--scores", scores, "--test_manifest", folder / "none.csv")
    assert "--scores" in told(capsys, "--scores")
    assert "underwater" in told(capsys, "hparams/ecapa_small.yaml", "--condition", "underwater")
    assert "--condition" in told(capsys, "--scores", scores, "--condition", "short")
    assert "--enrol_with" in told(capsys, "--scores", scores, "--enrol_with", "3")
    assert "--held_out_scores" in told(capsys, "--held_out_scores", scores)
    assert "--test_trials" in told(capsys, "--trials", scores)


def test_other_speakers_and_other_trials_are_refused(folder, capsys):
    error = told(capsys, "--scores", folder / "good.csv", "--held_out_scores", folder / "worse.parquet")
    assert "speaker s0" in error and "held-out" in error
    error = told(capsys, "--scores", folder / "good.csv", "--against", folder / "held_out.csv.gz")
    assert "7,140" in error and "hs00u0 hs00u1" in error


def test_a_faulty_score_file_is_named(folder, capsys):
    for change, named in [
        (lambda text: text.replace("score", "score,score", 1), "score twice"),
        (lambda text: text + "x,y,2,0.5\n", "'2'"),
        (lambda text: text + "x,y,1,nan\n", "line 7142"),
        (lambda text: text + "s00u0,s00u1,1,0.123\n", "s00u0 s00u1"),
        (lambda text: "enrol_id,test_id,target,score\na,b,1,0.5\n", "1 and 0"),
    ]:  # fmt: skip
        (folder / "bad.csv").write_text(change((folder / "good.csv").read_text()))
        error = told(capsys, "--scores", folder / "bad.csv")
        assert "bad.csv" in error and named in error


def test_starting_up_loads_neither_matplotlib_nor_torch():
    code = "import sys, eval_eer; print({'matplotlib', 'torch', 'speechbrain', 'scipy.signal'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
