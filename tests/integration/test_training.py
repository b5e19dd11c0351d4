"""Training from a folder of speech to checkpoints, curves and an EER, on a few artificial speakers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hyperpyyaml import load_hyperpyyaml

import eval_eer
import prepare
import train
from tests.conftest import write_speakers
from voice_biometrics.evaluation.trained_run import TrainedRun

TINY = "tests/hparams/tiny.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """8 speakers to train on (2 of them held out) and 3 to test."""
    folder = tmp_path_factory.mktemp("corpus")
    write_speakers(folder / "train", num_speakers=8, num_utterances=6)
    return write_speakers(folder / "test", num_speakers=3, num_utterances=4, first_speaker=8).parent


def arguments(corpus: Path, output_folder: Path, *more: str, hparams: str = TINY) -> list[str]:
    own = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--output_folder", str(output_folder)]
    return [hparams, *own, "--device", "cpu", *more]


def train_here(*args, **kwargs) -> pd.DataFrame:
    given = arguments(*args, **kwargs)
    train.main(given)
    return pd.read_csv(Path(given[6]) / "metrics.csv")


def fails_with(capsys, script, given: list[str]) -> str:
    with pytest.raises(SystemExit) as end:
        script.main(given)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A run of two epochs, evaluated."""
    folder = tmp_path_factory.mktemp("run")
    train.main(arguments(corpus, folder))
    eval_eer.main(arguments(corpus, folder))
    return folder


def test_a_run_leaves_what_the_readme_says(run):
    for name in ("hyperparams.yaml", "env.log", "train_log.txt", "metrics.csv", "curves.png", "manifests/train.csv"):
        assert (run / name).stat().st_size > 0, name
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2]
    assert metrics["eer"].between(0, 1).all() and (metrics["utterances_per_s"] > 0).all()
    assert metrics["train_loss"].iloc[1] < metrics["train_loss"].iloc[0]
    assert 1 <= len(list((run / "save").glob("CKPT*"))) <= 2  # the best and the last


def test_an_evaluation_leaves_scores_figures_and_pictures(run):
    folder = run / "eval" / "test"
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == 66 == metrics["num_target"] + metrics["num_nontarget"]  # all pairs of 3 x 4 utterances
    assert scores["target"].sum() == 18 == metrics["num_target"]
    assert metrics["chose_checkpoint"] is False
    lower, upper = metrics["interval"]
    assert 0 <= lower <= metrics["eer"] <= upper <= 1 and lower < upper
    assert (folder / "det.png").stat().st_size > 5000 and (folder / "scores.png").stat().st_size > 5000


def test_a_score_file_alone_gives_the_same_figures(run, tmp_path):
    scores = tmp_path / "mine.csv"
    scores.write_bytes((run / "eval" / "test" / "scores.csv").read_bytes())
    eval_eer.main(["--scores", str(scores)])
    again = json.loads((tmp_path / "mine_eval" / "metrics.json").read_text())
    before = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    assert {key: again[key] for key in ("eer", "min_dcf")} == {key: before[key] for key in ("eer", "min_dcf")}


def test_scoring_keys_conditions_and_enrolment_reach_the_figures(run, corpus):
    given = ["--as_norm_top", "2", "--subtract_mean", "True", "--segment_s", "0.5"]
    eval_eer.main(arguments(corpus, run, *given, "--enrol_with", "2", "--condition", "short:0.6", "telephone"))
    folder = run / "eval" / "test_enrolled_with_2"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["scoring"] == (
        "cosine, the cohort's mean subtracted, AS-norm by the nearest 2 speakers of the cohort"
    )
    assert (metrics["num_target"], metrics["num_nontarget"]) == (6, 12)  # 3 models, 2 utterances a speaker left to try
    assert list(metrics["conditions"]) == ["short, 0.6 s", "telephone"]
    clean, telephone = (pd.read_csv(folder / f"scores{name}.csv")["score"] for name in ("", "_telephone"))
    assert not np.allclose(clean, telephone)


def test_any_manifest_and_trial_list_can_be_evaluated(run, corpus, tmp_path):
    (tmp_path / "few.csv").write_text("enrol_id,test_id,target\nspk8/utt0,spk8/utt1,1\nspk8/utt0,spk9/utt1.wav,0\n")
    manifest = str(run / "manifests" / "test.csv")
    given = arguments(corpus, run, "--test_manifest", manifest)
    eval_eer.main([*given, "--test_trials", str(tmp_path / "few.csv")])
    assert len(pd.read_csv(run / "eval" / "few" / "scores.csv")) == 2


def test_trained_speakers_cannot_be_evaluated(run, corpus, capsys):
    told = fails_with(capsys, eval_eer, arguments(corpus, run, "--test_manifest", str(run / "manifests" / "train.csv")))
    assert "was trained on" in told


def test_a_run_that_was_not_trained_is_told_with_the_command_to_train_it(corpus, tmp_path, capsys):
    assert "python train.py" in fails_with(capsys, eval_eer, arguments(corpus, tmp_path / "none"))


def test_a_finished_run_is_not_trained_again(run, corpus):
    before = (run / "metrics.csv").read_bytes()
    train.main(arguments(corpus, run))
    assert (run / "metrics.csv").read_bytes() == before


def test_freed_memory_is_kept_for_crops_but_not_for_what_is_embedded_before_them(corpus, tmp_path, monkeypatch):
    order, prepare_data = [], train.dataio_prep
    monkeypatch.setattr(train, "keep_freed_memory", lambda: order.append("keep"))
    monkeypatch.setattr(train, "dataio_prep", lambda hparams: (order.append("data"), prepare_data(hparams))[1])
    train.main(arguments(corpus, tmp_path, "--processes", "1", "--number_of_epochs", "1"))
    assert order == ["data", "keep"]


def test_other_arguments_in_the_same_folder_are_refused_by_name(run, corpus, capsys):
    assert "another seed" in fails_with(capsys, train, arguments(corpus, run, "--seed", "5"))
    manifest = (run / "manifests" / "train.csv").read_bytes()
    assert "another valid_speakers" in fails_with(capsys, train, arguments(corpus, run, "--valid_speakers", "3"))
    assert (run / "manifests" / "train.csv").read_bytes() == manifest
    told = fails_with(capsys, train, arguments(corpus, run, "--number_of_epochs", "9"))
    assert "another number_of_epochs" in told and f"--pretrained {run}" in told


def test_held_out_speakers_are_the_trials_of_a_corpus_without_a_test_part(corpus, tmp_path):
    given = arguments(corpus / "train", tmp_path)
    train.main([*given, "--number_of_epochs", "1"])
    eval_eer.main([*given, "--number_of_epochs", "1"])
    assert json.loads((tmp_path / "eval" / "valid" / "metrics.json").read_text())["chose_checkpoint"] is True


@pytest.mark.parametrize("script", [train, prepare])
def test_a_trained_run_is_not_continued_with_other_speakers(run, corpus, tmp_path, capsys, script):
    copied = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    (copied / "train" / "spk3").rename(copied / "train" / "spk3b")
    before = (run / "manifests" / "train.csv").read_bytes()
    assert "spk3b is new in" in fails_with(capsys, script, arguments(copied, run))
    assert (run / "manifests" / "train.csv").read_bytes() == before


def test_a_bad_file_met_by_a_loading_process_is_told_in_one_line(tmp_path, capsys):
    write_speakers(tmp_path / "c", num_speakers=4, num_utterances=4)
    for path in (tmp_path / "c").glob("*/*0.wav"):
        soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT")
    told = fails_with(capsys, train, arguments(tmp_path / "c", tmp_path / "run", "--num_workers", "1"))
    assert "\nerror: " in told and "NaN" in told
    assert "Traceback" not in told and "Caught" not in told


def test_everybody_is_trained_on_with_zero_valid_speakers_and_the_last_checkpoint_counts(corpus, tmp_path, capsys):
    given = arguments(corpus, tmp_path, "--valid_speakers", "0")
    train.main(given)
    assert "the last checkpoint is used" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "metrics.csv")["eer"].isna().all()
    eval_eer.main(given)
    metrics = json.loads((tmp_path / "eval" / "test" / "metrics.json").read_text())
    assert metrics["checkpoint"].endswith("of epoch 2")


def test_a_run_folder_is_loaded_by_speechbrain_alone_and_the_brain_evaluates_without_training(run, corpus):
    hparams = load_hyperpyyaml((run / "hyperparams.yaml").read_text())
    assert {"embedding_model", "classifier", "checkpointer"} <= hparams.keys()
    assert load_hyperpyyaml((run / "merged.yaml").read_text())["n_mels"] == hparams["n_mels"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    _, valid_data, label_encoder = train.dataio_prep(hparams)
    brain = train.make_brain(hparams, {"device": "cpu"}, len(label_encoder))
    brain.evaluate(valid_data, min_key="EER", test_loader_kwargs={"batch_size": 1})
    assert brain.error_metrics.summarize() == pd.read_csv(run / "metrics.csv")["eer"].min()
    changed = {path.name for path in run.rglob("*") if path.stat().st_mtime_ns != before.get(path)}
    assert changed <= {"train_log.txt", "log.txt"}


def test_global_normalisation_is_kept_with_the_model_and_resumes(corpus, tmp_path):
    given = arguments(corpus, tmp_path, "--mean_var_norm", "{norm_type: global}")
    train.main(given)
    train.main([*given, "--noprogressbar"])
    modules = TrainedRun(tmp_path).modules
    assert modules["mean_var_norm"].count > 0
    eval_eer.main(given)
    assert pd.read_csv(tmp_path / "metrics.csv")["eer"].notna().all()


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(corpus, tmp_path):
    losses = [
        train_here(corpus, tmp_path / name, "--seed", seed)[["train_loss", "eer"]].to_numpy().tolist()
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_network_learns_a_few_speakers_by_heart(corpus, tmp_path):
    metrics = train_here(corpus, tmp_path, "--number_of_epochs", "20", "--lr", "0.01")
    assert metrics["train_loss"].iloc[-1] < 0.5 < metrics["train_loss"].iloc[0]
    assert metrics["eer"].min() < 0.35


def test_a_loss_that_is_not_finite_stops_training_with_advice(corpus, tmp_path, capsys):
    told = fails_with(capsys, train, arguments(corpus, tmp_path, "--lr", "1.0e+30"))
    assert "training loss is nan" in told and "lower --lr" in told


def test_a_corpus_smaller_than_a_batch_is_told(corpus, tmp_path, capsys):
    assert "smaller --batch_size" in fails_with(capsys, train, arguments(corpus, tmp_path, "--batch_size", "64"))


def process(command: list[str], **kwargs) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


EACH_STEP = ["--number_of_epochs", "4", "--ckpt_interval_minutes", "0", "--ckpt_interval_steps", "1"]
EACH_EPOCH = [*EACH_STEP[:-1], "1000000"]


def kill_when(folder: Path, command: list[str], newest: str) -> None:
    """Train until epoch 2 is over and a checkpoint says ``newest``, then kill the process that was started."""
    first = process(command)
    log = folder / "train_log.txt"
    wait_for(lambda: log.exists() and "epoch: 2" in log.read_text(), first)
    wait_for(lambda: any(newest in meta(path) for path in (folder / "save").glob("CKPT*")), first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert pd.read_csv(folder / "metrics.csv")["epoch"].max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    "more, newest",
    [(EACH_STEP, "end-of-epoch: false"), (EACH_EPOCH, "\nepoch: 2\n")],
    ids=["within an epoch", "at the end of an epoch"],
)
def test_a_killed_run_goes_on_to_the_same_curve(corpus, tmp_path, more, newest, processes):
    whole, killed = (
        [sys.executable, "train.py", *arguments(corpus, tmp_path / name, *more, "--processes", processes)]
        for name in ("whole", "killed")
    )
    assert process(whole).wait() == 0
    kill_when(tmp_path / "killed", killed, newest)
    assert process(killed).wait() == 0
    expected, found = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "killed"))
    assert found["epoch"].tolist() == [1, 2, 3, 4]
    pd.testing.assert_frame_equal(found[["train_loss", "lr", "eer"]], expected[["train_loss", "lr", "eer"]], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [("1", "2"), ("2", "1")])
def test_a_run_can_go_on_with_another_number_of_processes(corpus, tmp_path, before, after):
    command = [sys.executable, "train.py", *arguments(corpus, tmp_path, *EACH_STEP), "--processes"]
    kill_when(tmp_path, [*command, before], "end-of-epoch: false")
    first = pd.read_csv(tmp_path / "metrics.csv")
    assert process([*command, after]).wait() == 0
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2, 3, 4]
    figures = ["epoch", "train_loss", "lr", "eer"]  # an epoch that is only ended again has no speed
    pd.testing.assert_frame_equal(metrics[figures].iloc[: len(first)], first[figures])
    assert metrics["train_loss"].iloc[-1] < metrics["train_loss"].iloc[0]


def meta(checkpoint: Path) -> str:
    try:
        return (checkpoint / "CKPT.yaml").read_text()
    except FileNotFoundError:  # deleted meanwhile
        return ""


@pytest.mark.slow
def test_torchrun_trains_with_its_processes_and_the_run_is_evaluated_by_one(corpus, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = arguments(corpus, tmp_path)
    assert process([*torchrun, "train.py", *given]).wait(timeout=400) == 0
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [1, 2]
    eval_eer.main(given)
    assert (tmp_path / "eval" / "test" / "metrics.json").is_file()


@pytest.mark.slow
def test_two_processes_tell_an_error_once_and_end_at_an_interrupt(corpus, tmp_path):
    command = [sys.executable, "train.py", *arguments(corpus, tmp_path, "--processes", "2", "--lr")]
    failed = subprocess.run([*command, "1.0e+30"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.count("training loss is nan") == 1 and "Traceback" not in failed.stderr
    command += ["0.0001", "--number_of_epochs", "1000", "--output_folder", str(tmp_path / "long")]
    del command[command.index("--output_folder") : command.index("--output_folder") + 2]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        wait_for((tmp_path / "long" / "metrics.csv").exists, running)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=100)
    assert running.returncode == 130
    assert told.endswith("\nstopped\n") and "Traceback" not in told
