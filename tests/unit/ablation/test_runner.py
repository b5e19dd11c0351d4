"""Studies with stand-ins for training and evaluation: runs that are made, kept, resumed, copied, or fail."""

import json
import os
import re
import shutil
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
from voice_biometrics.ablation import runner
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
(folder / "hyperparams.yaml").touch()
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
    base = f"base: {ROOT / 'tests/hparams/tiny.yaml'}\n"
    for name, change in (("good", "lr: 0.002"), ("bad", "lr: 0.003"), ("pieces", "segment_s: 2.0")):
        (tmp_path / f"{name}.yaml").write_text(f"{base}{change}\n")
    write_speakers(tmp_path / "corpus", num_speakers=5, num_utterances=2, duration_s=0.1)
    return tmp_path


@pytest.fixture
def study(scripts, monkeypatch, capsys):
    """Runs ``run_ablations.py`` with the stand-ins; returns exit status and output."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(runner, "TRAINING", scripts / "train.py")
    monkeypatch.setattr(runner, "EVALUATION", scripts / "evaluate.py")
    monkeypatch.setattr(runner, "POLL_S", 0.02)

    def run(*given: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            run_ablations.main(arguments(scripts, *given))
        printed = capsys.readouterr()
        return end.value.code, printed.out + printed.err

    return run


def arguments(scripts: Path, *given: str) -> list[str]:
    own = ["--base", str(ROOT / "tests/hparams/tiny.yaml"), "--corpus", "speaker_folders"]
    return [*given, *own, "--data_folder", str(scripts / "corpus"), "--output_folder", str(scripts / "study")]


def variant(scripts: Path, name: str) -> str:
    return str(scripts / f"{name}.yaml")


def actions(printed: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+, seed \d+) +(\w+: .*)$", printed, re.MULTILINE))


def change_state(run_folder: Path, change) -> None:
    """Apply ``change`` to the content of ``study.json``."""
    state = json.loads((run_folder / "study.json").read_text())
    change(state)
    (run_folder / "study.json").write_text(json.dumps(state))


def test_a_study_makes_the_missing_runs_and_keeps_those_that_did_not_change(study, scripts):
    given = (variant(scripts, "good"), "--seeds", "1", "--tiny.seeds", "1", "2")
    status, printed = study(*given)
    assert status == 0 and list(actions(printed)) == ["tiny, seed 1", "good, seed 1", "tiny, seed 2"]
    rows = pd.read_csv(scripts / "study" / "ablations.csv")
    assert rows["variant"].tolist() == ["good", "tiny"] and rows["eer_clean"].tolist() == [0.05, 0.1]
    assert rows["train_s"].tolist() == [4.0, 4.0] and (rows["train_cpu_s"] > 0).all()
    assert rows["num_train_speakers"].tolist() == [3, 3]
    assert all((scripts / "study" / name).is_file() for name in ("ablations.md", "ablations.png"))
    assert not (scripts / "study" / "data_size.png").exists()
    log = scripts / "study" / "good" / "1" / "study.log"
    assert "training good from epoch 1" in log.read_text()

    _, printed = study(*given)
    assert {action.partition(":")[0] for action in actions(printed).values()} == {"keep"}
    assert log.read_text().count("training") == 1

    _, printed = study(*given, "--good.lr", "0.5")
    assert actions(printed)["good, seed 1"].startswith("retrain: lr is 0.5, was 0.002")
    assert actions(printed)["tiny, seed 1"].startswith("keep")
    assert "training good from epoch 1" in log.read_text()
    assert (scripts / "study" / "replaced" / "good-1-1" / "study.log").is_file()


def test_a_variant_that_differs_in_scoring_only_copies_the_network(study, scripts):
    given = (variant(scripts, "pieces"), variant(scripts, "good"), "--seeds", "1", "2", "--devices", "cpu,cpu:0")
    status, printed = study(*given)
    assert status == 0 and actions(printed)["pieces, seed 2"] == "copy: trained as tiny, seed 2"
    logs = {path.parent: path.read_text() for path in (scripts / "study").glob("*/*/study.log")}
    assert len(logs) == 6
    assert all(("training" in log) == (folder.parent.name != "pieces") for folder, log in logs.items())
    for device in ("cpu", "cpu:0"):
        assert any(f"--device {device}\n" in log for log in logs.values())
    rows = pd.read_csv(scripts / "study" / "ablations.csv").set_index("variant")
    assert rows.loc["pieces", "seeds"] == "1 2" and rows.loc["pieces", "train_s"] == 4.0
    _, printed = study(*given)
    assert {action.partition(":")[0] for action in actions(printed).values()} == {"keep"}


def test_the_plan_names_changes_of_data_and_code_and_retrains_or_evaluates(study, scripts, capsys):
    study("--seeds", "1", "2", "3")
    folders = {seed: scripts / "study" / "tiny" / str(seed) for seed in range(1, 5)}
    brain, conditions = "voice_biometrics/training/brain.py", "voice_biometrics/evaluation/conditions.py"
    change_state(folders[1], lambda state: state["fingerprint"].update({f"code: {brain}": "older"}))
    change_state(folders[2], lambda state: state["evaluated_from"].update({conditions: "older"}))
    change_state(folders[3], lambda state: state.update(fingerprint={"config": {}, "data": {}, "code": {}}))
    (folders[4] / "save" / "CKPT").mkdir(parents=True)
    run_ablations.main(arguments(scripts, "--seeds", "1", "2", "3", "4", "--dry_run"))
    found = actions(capsys.readouterr().out)
    assert found["tiny, seed 1"] == f"retrain: code: {brain} differs"
    assert found["tiny, seed 2"] == f"evaluate: {conditions} differs"
    assert found["tiny, seed 3"].startswith("retrain: ") and "another version" in found["tiny, seed 3"]
    assert found["tiny, seed 4"].startswith("retrain: ") and "study.json" in found["tiny, seed 4"]

    study("--seeds", "2")
    assert (folders[2] / "study.log").read_text().count("training") == 1
    write_speakers(scripts / "corpus", num_speakers=6, num_utterances=2, duration_s=0.1)
    run_ablations.main(arguments(scripts, "--seeds", "1", "--dry_run"))
    assert "data: train.csv differs" in actions(capsys.readouterr().out)["tiny, seed 1"]


def test_a_failed_run_and_its_copy_are_reported_and_the_others_are_made(study, scripts):
    (scripts / "copy.yaml").write_text(f"base: {scripts / 'bad.yaml'}\nsegment_s: 2.0\n")
    given = [*(variant(scripts, name) for name in ("bad", "copy", "good")), "--seeds", "1"]
    status, printed = study(*given)
    assert status == 1
    assert printed.count("FAILED  bad, seed 1: training ended with status 1") == 2
    assert "error: this variant cannot be trained" in printed
    assert "progress 2" in printed and "progress 1" not in printed
    assert sorted(pd.read_csv(scripts / "study" / "ablations.csv")["variant"]) == ["good", "tiny"]
    status, printed = study(*given)
    assert status == 1 and actions(printed)["bad, seed 1"] == "resume: after epoch 0 of 2"


def test_a_dry_run_prints_the_plan_and_writes_nothing(scripts, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run_ablations.main(arguments(scripts, variant(scripts, "good"), "--seeds", "1", "--dry_run"))
    assert actions(capsys.readouterr().out) == {"tiny, seed 1": "train: new", "good, seed 1": "train: new"}
    assert not (scripts / "study").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_study_leaves_no_training_behind_and_resumes(study, scripts, kill):
    """The study is a process of its own, ended by a signal in the second epoch."""
    program = f"""
        import pathlib, sys
        import run_ablations
        from voice_biometrics.ablation import runner
        folder = pathlib.Path({str(scripts)!r})
        runner.TRAINING, runner.EVALUATION = folder / "slow.py", folder / "evaluate.py"
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
    os.kill(first.pid, kill)
    first.wait(timeout=20)
    time.sleep(1.0)
    size = metrics.stat().st_size
    time.sleep(1.0)
    assert metrics.stat().st_size == size  # the training has ended too
    num_done = len(pd.read_csv(metrics))
    status, printed = study("--seeds", "1", "--number_of_epochs", "40")
    assert status == 0
    assert actions(printed)["tiny, seed 1"] == f"resume: after epoch {num_done} of 40"
    assert f"training tiny from epoch {num_done + 1}" in (metrics.parent / "study.log").read_text()
    assert pd.read_csv(scripts / "study" / "ablations.csv")["train_cpu_s"].isna().all()  # not known in full


def test_a_study_folder_that_is_locked_or_cannot_be_written_is_refused(study, scripts):
    with only_run_in(scripts / "study"):
        status, printed = study("--seeds", "1")
    assert status == 2 and str(scripts / "study") in printed
    shutil.rmtree(scripts / "study")
    (scripts / "study").write_text("a file")
    status, printed = study("--seeds", "1")
    assert status == 2 and str(scripts / "study") in printed
