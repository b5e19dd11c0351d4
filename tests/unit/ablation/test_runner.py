"""Studies with stand-ins for training and evaluation: what is run, kept, continued, and told when it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest

import run_ablations
from tests.conftest import write_speakers
from voice_biometrics.ablation import plan, runner
from voice_biometrics.ablation import runner as processes
from voice_biometrics.experiment.run_folder import only_run_in

ROOT = Path(__file__).parents[3]

TRAIN = """
import csv, json, pathlib, sys, time
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = pathlib.Path(given["--output_folder"])
rows = list(csv.DictReader(open(folder / "metrics.csv"))) if (folder / "metrics.csv").exists() else []
print("training", pathlib.Path(sys.argv[1]).stem, "from epoch", len(rows) + 1, flush=True)
(folder / "save" / "CKPT").mkdir(parents=True, exist_ok=True)
(folder / "manifests").mkdir(exist_ok=True)
if "bad" in sys.argv[1]:
    print("progress 1\\rprogress 2", flush=True)
    sys.exit("error: this variant cannot be trained")
for epoch in range(len(rows) + 1, int(given.get("--number_of_epochs", 2)) + 1):
    time.sleep(EPOCH_S)
    rows.append({"epoch": epoch, "train_loss": 1.0, "eer": 0.1, "train_seconds": 2.0})
    with open(folder / "m.tmp", "w") as file:
        writer = csv.DictWriter(file, rows[0]); writer.writeheader(); writer.writerows(rows)
    (folder / "m.tmp").replace(folder / "metrics.csv")
"""

EVALUATE = """
import json, pathlib, sys
import numpy as np
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert (pathlib.Path(sys.argv[1]) / "valid_trials.csv").is_file()
folder = pathlib.Path(given["--output_folder"]) / "study"
folder.mkdir(exist_ok=True)
eer = 0.05 if "good" in sys.argv[2] else 0.1
figures = {name: {"eer": eer, "min_dcf": {"0.01": 0.5}} for name in ("clean", "channel")}
draws = eer * np.concatenate([[1], np.random.default_rng(0).normal(1, 0.1, 1000), np.linspace(0.99, 1.01, 25)])
for name in figures:
    np.save(folder / f"{name}.npy", draws)
costs = dict(num_parameters=10, num_parameters_with_head=12, macs_3s=1e6, inference_s=0.01, inference_hardware="A")
(folder / "figures.json").write_text(json.dumps({**figures, **costs, "num_valid_speakers": 25}))
"""


@pytest.fixture
def scripts(tmp_path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN.replace("EPOCH_S", "0.0"))
    (tmp_path / "slow.py").write_text(TRAIN.replace("EPOCH_S", "0.5"))
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    for name, change in (("good", "lr: 0.002"), ("bad", "lr: 0.003")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {ROOT / 'tests/hparams/tiny.yaml'}\n{change}\n")
    write_speakers(tmp_path / "corpus", num_speakers=5, num_utterances=2, duration_s=0.1)
    return tmp_path


@pytest.fixture
def study(scripts, monkeypatch, capsys):
    """Runs ``run_ablations.py`` with the stand-ins; returns exit status and what was printed."""
    monkeypatch.chdir(ROOT)
    real, train, evaluate = runner.Runner, scripts / "train.py", scripts / "evaluate.py"
    monkeypatch.setattr(run_ablations, "Runner", lambda _, __, *rest: real(train, evaluate, *rest))
    monkeypatch.setattr(processes, "POLL_S", 0.05)

    def run(*given: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            run_ablations.main(arguments(scripts, *given))
        printed = capsys.readouterr()
        return end.value.code, printed.out + printed.err

    return run


def arguments(scripts: Path, *given: str) -> list[str]:
    own = ["--base", str(ROOT / "tests/hparams/tiny.yaml"), "--corpus", "speaker_folders"]
    return [*given, *own, "--data_folder", str(scripts / "corpus"), "--output_folder", str(scripts / "study")]


def good(scripts: Path) -> str:
    return str(scripts / "good.yaml")


def actions(printed: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+, seed \d+) +(\w[\w ]*:.*)$", printed, re.MULTILINE))


def test_a_study_runs_what_is_missing_and_writes_its_table(study, scripts):
    status, printed = study(good(scripts), "--seeds", "1", "--tiny.seeds", "1", "2")
    assert status == 0
    assert list(actions(printed)) == ["tiny, seed 1", "good, seed 1", "tiny, seed 2"]
    rows = pd.read_csv(scripts / "study" / "ablations.csv")
    assert rows["variant"].tolist() == ["good", "tiny"] and rows["eer_clean"].tolist() == [0.05, 0.1]
    assert rows["train_s"].tolist() == [4.0, 4.0] and (rows["train_cpu_s"] > 0).all()
    assert rows["num_train_speakers"].tolist() == [3, 3]
    for name in ("ablations.md", "ablations.png"):
        assert (scripts / "study" / name).is_file()
    assert not (scripts / "study" / "data_size.png").exists()
    assert "training tiny from epoch 1" in (scripts / "study" / "tiny" / "1" / "study.log").read_text()


def test_a_finished_run_is_kept_until_something_differs_and_it_is_told_what(study, scripts):
    given = (good(scripts), "--seeds", "1")
    study(*given)
    _, printed = study(*given)
    assert all(action.startswith("keep") for action in actions(printed).values())
    assert "training good from epoch 1" in (log := scripts / "study" / "good" / "1" / "study.log").read_text()
    assert log.read_text().count("training") == 1

    _, printed = study(*given, "--good.lr", "0.5")
    assert actions(printed)["good, seed 1"].startswith("train anew: lr is 0.5, was 0.002")
    assert actions(printed)["tiny, seed 1"].startswith("keep")
    assert "training good from epoch 1" in log.read_text()
    assert (scripts / "study" / "replaced" / "good-1-1" / "study.log").is_file()

    write_speakers(scripts / "corpus", num_speakers=6, num_utterances=2, duration_s=0.1)
    _, printed = study(*given)
    assert "data: train.csv differs" in actions(printed)["tiny, seed 1"]


def test_a_variant_that_only_scores_in_another_way_takes_the_network_of_the_first(study, scripts):
    (scripts / "pieces.yaml").write_text(f"base: {ROOT / 'tests/hparams/tiny.yaml'}\nsegment_s: 2.0\n")
    status, printed = study(str(scripts / "pieces.yaml"), good(scripts), "--seeds", "1", "2", "--jobs", "2")
    assert status == 0
    assert actions(printed)["pieces, seed 2"] == "copy: trained as tiny, seed 2"
    logs = {name: (scripts / "study" / name / "2" / "study.log").read_text() for name in ("tiny", "pieces")}
    assert "training tiny" in logs["tiny"] and "training" not in logs["pieces"]
    rows = pd.read_csv(scripts / "study" / "ablations.csv").set_index("variant")
    assert rows.loc["pieces", "seeds"] == "1 2" and rows.loc["pieces", "train_s"] == 4.0
    _, printed = study(str(scripts / "pieces.yaml"), good(scripts), "--seeds", "1", "2")
    assert all(action.startswith("keep") for action in actions(printed).values())


def test_a_copy_of_a_network_that_could_not_be_trained_fails_with_it(study, scripts):
    (scripts / "pieces.yaml").write_text(f"base: {scripts / 'bad.yaml'}\nsegment_s: 2.0\n")
    status, printed = study(str(scripts / "bad.yaml"), str(scripts / "pieces.yaml"), "--seeds", "1")
    assert status == 1
    assert pd.read_csv(scripts / "study" / "ablations.csv")["variant"].tolist() == ["tiny"]


def test_changed_code_is_told_by_its_file_and_that_of_the_evaluation_only_evaluates_again(study, scripts):
    study("--seeds", "1", "2")
    for seed, part, name in (
        (1, lambda state: state["fingerprint"]["code"], "voice_biometrics/training/brain.py"),
        (2, lambda state: state["evaluated_from"], "voice_biometrics/evaluation/conditions.py"),
    ):
        path = scripts / "study" / "tiny" / str(seed) / "study.json"
        state = json.loads(path.read_text())
        part(state)[name] = "of older code"
        path.write_text(json.dumps(state))
    _, printed = study("--seeds", "1", "2")
    assert actions(printed)["tiny, seed 1"] == "train anew: code: voice_biometrics/training/brain.py differs"
    assert actions(printed)["tiny, seed 2"] == "evaluate: voice_biometrics/evaluation/conditions.py differs"
    assert (scripts / "study" / "tiny" / "2" / "study.log").read_text().count("training") == 1


def test_a_failed_variant_is_told_with_its_last_lines_and_the_others_go_on(study, scripts):
    status, printed = study(str(scripts / "bad.yaml"), good(scripts), "--seeds", "1")
    assert status == 1
    assert "FAILED  bad, seed 1: training ended with status 1" in printed
    assert "error: this variant cannot be trained" in printed
    assert "progress 2" in printed and "progress 1" not in printed
    assert sorted(pd.read_csv(scripts / "study" / "ablations.csv")["variant"]) == ["good", "tiny"]
    status, printed = study(str(scripts / "bad.yaml"), good(scripts), "--seeds", "1")
    assert status == 1 and actions(printed)["bad, seed 1"] == "go on: after epoch 0 of 2"


def test_a_dry_run_says_what_would_be_run_and_does_nothing(scripts, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run_ablations.main(arguments(scripts, good(scripts), "--seeds", "1", "--dry_run"))
    assert actions(capsys.readouterr().out) == {"tiny, seed 1": "train: new", "good, seed 1": "train: new"}
    assert not (scripts / "study").exists()


def test_several_runs_go_on_at_a_time_on_the_named_devices(study, scripts):
    status, _ = study(good(scripts), "--seeds", "1", "--devices", "cpu,cpu:0")
    assert status == 0
    logs = [path.read_text() for path in (scripts / "study").glob("*/*/study.log")]
    assert len(logs) == 2 and all("--device cpu" in log for log in logs)
    assert any("--device cpu:0\n" in log for log in logs) and any("--device cpu\n" in log for log in logs)


def test_a_run_of_another_command_in_the_folder_is_set_aside(study, scripts):
    (scripts / "study" / "tiny" / "1" / "save" / "CKPT").mkdir(parents=True)
    _, printed = study("--seeds", "1")
    assert actions(printed)["tiny, seed 1"].startswith("train anew: the run in its folder is not of a study")
    assert (scripts / "study" / "replaced" / "tiny-1-1" / "save" / "CKPT").is_dir()


def test_a_killed_study_leaves_no_training_behind_and_goes_on(study, scripts):
    """In a process of its own, killed without warning in the second epoch."""
    program = f"""
        import functools, pathlib, sys
        import run_ablations
        folder = pathlib.Path({str(scripts)!r})
        real = run_ablations.Runner
        run_ablations.Runner = lambda _, __, *rest: real(folder / "slow.py", folder / "evaluate.py", *rest)
        run_ablations.main(sys.argv[1:])
    """
    given = arguments(scripts, "--seeds", "1", "--number_of_epochs", "40")
    command = [sys.executable, "-c", textwrap.dedent(program), *given]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = scripts / "study" / "tiny" / "1" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1.0)
    size = metrics.stat().st_size
    time.sleep(1.0)
    assert metrics.stat().st_size == size  # the training has ended too
    num_done = len(pd.read_csv(metrics))
    status, printed = study("--seeds", "1", "--number_of_epochs", "40")
    assert status == 0
    assert actions(printed)["tiny, seed 1"] == f"go on: after epoch {num_done} of 40"
    assert f"training tiny from epoch {num_done + 1}" in (metrics.parent / "study.log").read_text()
    assert pd.read_csv(scripts / "study" / "ablations.csv")["train_cpu_s"].isna().all()  # part of it is not known


def test_two_studies_in_one_folder_are_refused(study, scripts):
    with only_run_in(scripts / "study"):
        status, printed = study("--seeds", "1")
    assert status == 2 and "another run is going on in this folder" in printed


@pytest.mark.parametrize(
    "given, told",
    [
        (["fbnak", "--seeds", "1"], "did you mean fbank?"),
        (["nowhere.yaml", "--seeds", "1"], "missing; there are"),
        (["fbank", "fbank", "--seeds", "1"], "fbank: named twice"),
        (["fbank"], "no seeds"),
        (["fbank", "--seeds", "1", "1"], "each once"),
        (["fbank", "--seeds", "one"], "whole numbers"),
        (["fbank", "--seeds", "1", "--lrr", "0.1"], "--lrr"),
        (["fbank", "--seeds", "1", "--tiny.lrr", "0.1"], "not a key of"),
        (["fbank", "--seeds", "1", "--fbnk.lr", "0.1"], "fbnk is no variant of this study"),
        (["fbank", "--seeds", "1", "--lr", "0.1", "--lr", "0.2"], "--lr: given twice"),
        (["fbank", "--seeds", "1", "--seed", "3"], "use --seeds"),
        (["fbank", "--seeds", "1", "--fbank.save_folder", "x"], "each run has its own"),
        (["fbank", "--seeds", "1", "--devices", "cpu", "--device", "cpu"], "give one of them"),
        (["fbank", "--seeds", "1", "--jobs", "0"], "expected 1 or more"),
        (["fbank", "--seeds", "1", "--valid_speakers", "0"], "holds out no speakers"),
        (["fbank", "--seeds", "1", "--fbank.split_seed", "1"], "variant fbank: would be trained on"),
    ],
)
def test_bad_input_is_told_in_a_line(study, given, told):
    status, printed = study(*given)
    assert status == 2 and told in printed


def test_a_folder_that_cannot_be_written_is_told(scripts, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (scripts / "study").write_text("a file")
    with pytest.raises(SystemExit) as end:
        run_ablations.main(arguments(scripts, "--seeds", "1"))
    assert end.value.code == 2 and "cannot be written" in capsys.readouterr().err


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as end:
        run_ablations.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 120


def test_overrides_go_to_all_or_to_one_variant():
    rest = ["--lr", "0.1", "--b.seeds", "3", "4", "--b.lr", "0.2", "--a.margin_rad=0.3", "--noprogressbar"]
    shared_out, seeds = plan.split_overrides(rest, ["a", "b"])
    assert shared_out["a"] == ["--lr", "0.1", "--noprogressbar", "--margin_rad=0.3"]
    assert shared_out["b"] == ["--lr", "0.2", "--noprogressbar"]
    assert seeds == {"b": ["3", "4"]}


def test_own_seeds_and_the_order_of_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = ["fbank", "--seeds", "1", "--fbank.seeds", "1", "2", "--jobs", "2", "--lr", "0.1"]
    options, request = run_ablations.read_request(given)
    assert request.runs() == [("ecapa_small", 1), ("fbank", 1), ("fbank", 2)] and options.jobs == 2
    assert request.base == "ecapa_small" and request.overrides["fbank"] == ["--lr", "0.1"]


def test_last_lines_show_what_a_progress_bar_showed_last(tmp_path):
    (tmp_path / "log").write_bytes(b"".join(b"line %d\n" % i for i in range(20)) + b"0 %\r50 %\r99 %\n\nerror: \xff\n")
    assert processes.last_lines(tmp_path / "log")[-3:] == ["line 19", "99 %", "error: \ufffd"]
