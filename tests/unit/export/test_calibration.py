"""Calibration of exported embedders: which runs may calibrate, pooled trials, the entries of calibration.json."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.conftest import write_speakers
from tests.model_folders import FINGERPRINTS, toy_calibration, write_toy_model_folder
from tests.run_folders import write_run_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.evaluate import judge, with_llrs
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export import calibration
from voice_biometrics.export.calibration import (
    ExportedRun,
    calibration_entry,
    check_calibration_runs,
    measure,
    score_held_out,
)
from voice_biometrics.export.package import describe_held_out
from voice_biometrics.inference.model_folder import read_model_folder, write_sums
from voice_biometrics.scoring.scored_trials import ScoredTrials


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Return a function that writes a run folder of a name and loads it."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = write_speakers(folder / "corpus", num_speakers=5, num_utterances=2, duration_s=0.6)

    def write(name: str, *more: str, num_held_out: int = 2, **kwargs) -> TrainedRun:
        return TrainedRun(write_run_folder(folder / name, corpus, *more, num_held_out=num_held_out, **kwargs))

    return write


@pytest.fixture(scope="module")
def everybody(write):
    return write("everybody", num_held_out=0)


@pytest.fixture(scope="module")
def fold(write):
    return write("fold", "--split_seed", "1", "--seed", "4")


def test_runs_that_differ_in_seeds_held_out_speakers_and_scoring_calibrate(everybody, fold, write):
    other = write("other", "--split_seed", "2", "--as_norm_top", "5", "--max_trials", "4", num_held_out=3)
    check_calibration_runs(everybody, [fold, other])
    once, again = (set(run.held_out().manifest["spk_id"]) for run in (fold, other))
    words = describe_held_out(everybody, [ExportedRun(run, {}) for run in (fold, other)])
    assert words.startswith(f"{len(once | again)} speakers of speaker_folders, held out of 2 trainings")
    assert f"; {len(once & again)} of them were held out of more than one training" in words
    assert "held out of another training" in describe_held_out(everybody, [ExportedRun(fold, {})])


@pytest.mark.parametrize(
    "changed, named",
    [
        (("--margin_rad", "0.3"), r"margin_rad \(0.3\).*everybody \(0.2\)"),
        (("--augment_noise", "0.5"), "augment_noise"),
        (("--embedding_dim", "8"), r"embedding_dim \(8"),
    ],
)
def test_a_run_of_other_hparams_is_refused_by_key(everybody, write, changed, named):
    other = write(changed[0].strip("-"), *changed)
    with pytest.raises(InputError, match=f"another {named}"):
        check_calibration_runs(everybody, [other])


def test_another_loss_is_refused(everybody, fold, tmp_path):
    hparams = shutil.copytree(fold.folder, tmp_path / "copy") / "hyperparams.yaml"
    hparams.write_text(hparams.read_text().replace("AdditiveAngularMargin", "AngularMargin"))
    with pytest.raises(InputError, match="another compute_cost"):
        check_calibration_runs(everybody, [TrainedRun(hparams.parent)])


def test_a_run_given_twice_one_that_was_stopped_and_one_without_held_out_speakers_are_refused(
    everybody, fold, write, tmp_path
):
    copy = TrainedRun(shutil.copytree(fold.folder, tmp_path / "copy"))
    with pytest.raises(InputError, match="copy.*same network.*fold"):
        check_calibration_runs(everybody, [fold, copy])
    stopped = write("stopped", epoch=1)
    with pytest.raises(InputError, match="stopped after epoch 1 of 2"):
        check_calibration_runs(everybody, [stopped])
    check_calibration_runs(stopped, [])  # its held-out speakers selected the epoch
    with pytest.raises(InputError, match="stopped within its first epoch of 2"):
        check_calibration_runs(write("begun", num_held_out=0, epoch=None), [fold])
    with pytest.raises(InputError, match="no speakers were held out"):
        check_calibration_runs(everybody, [write("none", "--seed", "7", num_held_out=0)])


def make_trials(num_speakers=12, num_utterances=5, seed=0) -> ScoredTrials:
    """Return all pairs of utterances; targets score 0.6 on average and non-targets 0.2."""
    rng = np.random.default_rng(seed)
    ids = [f"s{speaker}u{number}" for speaker in range(num_speakers) for number in range(num_utterances)]
    utterances = pd.DataFrame({"ID": ids, "spk_id": [name.split("u")[0] for name in ids], "duration": 3.0})
    first, second = np.triu_indices(len(ids), 1)
    target = utterances["spk_id"].to_numpy()[first] == utterances["spk_id"].to_numpy()[second]
    scores = rng.normal(np.where(target, 0.6, 0.2), 0.15)
    names = np.array(ids)
    table = {"enrol_id": names[first], "test_id": names[second], "target": target.astype(int), "score": scores}
    return ScoredTrials("clean", pd.DataFrame(table), utterances)


@pytest.fixture(scope="module")
def measured():
    return measure(make_trials())


def test_an_entry_is_read_back_from_a_model_folder(measured, tmp_path):
    folder = write_toy_model_folder(tmp_path / "model")
    content = toy_calibration(FINGERPRINTS)
    content["embedders"]["fp32"] = calibration_entry(measured, "embedder.onnx", FINGERPRINTS["fp32"])
    (folder / "calibration.json").write_text(json.dumps(content))
    write_sums(folder)
    read = read_model_folder(folder).embedder("fp32")
    assert read.calibration == measured.thresholds.calibration
    point = read.operating_points["smart_speaker"]
    assert point.support == "coarse" and point.num_nontarget == 1650
    assert point.far.lower <= point.far.estimate <= 0.01 < point.far.upper


def test_the_curve_has_the_rates_of_all_trials_at_its_thresholds(measured):
    curve = calibration_entry(measured, "a", "b")["error_rates"]
    llr, far, frr = (np.array(curve[key]) for key in ("llr", "far", "frr"))
    is_target = measured.clean.trials.is_target
    for threshold, rate, other in zip(llr, far, frr, strict=True):
        assert np.mean(measured.clean.llrs[~is_target] >= threshold) == pytest.approx(rate)
        assert np.mean(measured.clean.llrs[is_target] < threshold) == pytest.approx(other)
    for max_far in (0.2, 0.05, 0.01, 0.003):  # the lowest FRR there is within this FAR is on the curve, nearly
        lowest = np.quantile(measured.clean.llrs[~is_target], 1 - max_far, method="higher")
        assert frr[np.flatnonzero(far <= max_far)[0]] == pytest.approx(
            np.mean(measured.clean.llrs[is_target] < lowest), abs=0.01
        )
    assert llr.size <= 1002 and (far[0], frr[0], far[-1], frr[-1]) == (1, 0, 0, 1)


def test_each_ratio_is_from_a_calibration_on_other_speakers(measured):
    own = measured.thresholds.calibration.llrs(measured.clean.trials.scores)
    assert np.abs(measured.clean.llrs - own).max() > 0.01
    assert np.median(np.abs(measured.clean.llrs - own)) < 1


def test_worse_scores_of_the_same_trials_have_higher_rates_at_the_same_threshold(measured):
    rng, table = np.random.default_rng(1), measured.clean.trials.table
    worse = table.assign(score=table["score"] + rng.normal(0.1, 0.1, len(table)))
    noisy = judge(ScoredTrials("noise", worse, measured.clean.trials.utterances), ())
    noisy = with_llrs(noisy, measured.thresholds, (), are_held_out=True)
    assert noisy.eer.estimate > measured.clean.eer.estimate
    far = measured.thresholds.held_out["smart_speaker"].far.estimate
    assert noisy.points["smart_speaker"].far.estimate > 2 * far


def test_trials_are_pooled_by_speaker_and_never_across_networks(monkeypatch):
    lists = iter([make_trials(8, seed=1), make_trials(10, seed=2)])
    monkeypatch.setattr(calibration, "_score", lambda *args: next(lists))
    pooled = score_held_out(["first run", "second run"], "fp32")
    assert len(pooled.utterances) == 40 + 50 == pooled.utterances["ID"].nunique()
    assert pooled.utterances["spk_id"].nunique() == 10
    assert len(pooled.table) == 780 + 1225
    assert (pooled.table["enrol_id"].str[0] == pooled.table["test_id"].str[0]).all()
    enrol, test = pooled.of_sides("spk_id")
    np.testing.assert_array_equal(enrol == test, pooled.is_target)
