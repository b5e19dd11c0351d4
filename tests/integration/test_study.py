"""A run of a study from training to its scores, figures and row, on a few synthetic speakers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import train
from run_ablations import manifests_in
from tests.conftest import write_speakers
from voice_biometrics.ablation import score_run
from voice_biometrics.ablation.fingerprint import manifest_digests
from voice_biometrics.ablation.plan import Request, plan_runs
from voice_biometrics.ablation.results import read_result
from voice_biometrics.ablation.runner import copy_network
from voice_biometrics.ablation.statistics import NUM_REPLICATES
from voice_biometrics.common.files import write_json
from voice_biometrics.experiment.run_folder import read_epochs
from voice_biometrics.scoring.score_files import read_scores

TINY = Path("tests/hparams/tiny.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The only run of a study, trained and evaluated."""
    place = tmp_path_factory.mktemp("study")
    corpus = write_speakers(place / "corpus", num_speakers=6, num_utterances=4)
    overrides = ["--corpus", "speaker_folders", "--data_folder", str(corpus), "--device", "cpu"]
    request = Request({"tiny": TINY}, {"tiny": [3]}, {"tiny": overrides}, place / "out")
    (run,) = plan_runs(request, manifests_in(place / "out" / "manifests"), place / "out" / "trials")
    train.main(run.arguments)
    write_json({"train_cpu_s": 1.0, "hardware": "here"}, run.folder / "study.json")
    score_run.main([str(place / "out" / "trials"), *run.arguments])
    return run


def test_the_manifests_of_a_study_are_those_that_training_writes(run):
    written = manifest_digests(run.folder / "manifests")
    assert len(written) == 3
    assert {name: run.fingerprint[f"data: {name}"] for name in written} == written


def test_the_clean_eer_is_that_of_the_best_epoch_and_the_channel_changes_it(run):
    folder = run.folder / "study"
    figures = json.loads((folder / "figures.json").read_text())
    best = min(read_epochs(run.folder), key=lambda row: row["eer"])
    assert figures["clean"]["eer"] == pytest.approx(best["eer"], abs=1e-9) and figures["epoch"] == best["epoch"]
    clean, channel = (read_scores(folder / f"{name}.parquet") for name in ("clean", "channel"))
    pd.testing.assert_frame_equal(clean.drop(columns="score"), channel.drop(columns="score"))
    assert np.abs(clean["score"] - channel["score"]).max() > 0.01
    assert len(clean) == 8 * 7 / 2


def test_size_and_time_of_a_run_are_recorded(run):
    result = read_result(run)
    figures = result.figures
    assert figures["num_parameters_with_head"] == figures["num_parameters"] + 4 * 16
    assert figures["macs_3s"] > 1e6 and figures["inference_s"] > 0 and figures["train_s"] > 0
    assert figures["num_valid_speakers"] == 2 and figures["hardware"] == "here"
    assert {name: draws.shape for name, draws in result.draws.items()} == {
        name: (1 + NUM_REPLICATES + 2,) for name in ("clean", "channel")
    }
    assert result.draws["clean"][0] == pytest.approx(figures["clean"]["eer"], abs=1e-12)


def test_a_variant_that_differs_in_scoring_only_is_evaluated_on_the_copied_network(run, tmp_path):
    arguments = [str(tmp_path) if text == str(run.folder) else text for text in run.arguments]
    copied = replace(run, folder=tmp_path, arguments=[*arguments, "--segment_s", "0.5"], source=run.folder)
    copy_network(copied)
    score_run.main([str(run.folder.parents[1] / "trials"), *copied.arguments])
    clean, theirs = (read_scores(folder / "study" / "clean.parquet") for folder in (tmp_path, run.folder))
    assert len(clean) == len(theirs) and np.abs(clean["score"] - theirs["score"]).max() > 1e-4
