"""Table and plots of a study from hand-made figures."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.ablation.results import (
    RunResult,
    Study,
    markdown,
    plot_data_size,
    plot_variants,
    verdict,
)
from voice_biometrics.ablation.statistics import NUM_REPLICATES, Estimate

NUM_SPEAKERS = 25


def result(seed: int, clean: float, channel: float, num_train_speakers: int = 100, **figures) -> RunResult:
    """A run whose EER for each draw of speakers is its EER times the difficulty of the draw, plus a little."""
    rng = np.random.default_rng(0)
    difficulty = np.concatenate([[1.0], rng.normal(1.0, 0.1, NUM_REPLICATES), rng.normal(1.0, 0.01, NUM_SPEAKERS)])
    own = np.concatenate([[0.0], np.random.default_rng(seed).normal(0.0, 0.002, NUM_REPLICATES + NUM_SPEAKERS)])
    eers = {"clean": clean, "channel": channel}
    usual = {
        "num_valid_speakers": NUM_SPEAKERS, "num_parameters": 1000, "num_parameters_with_head": 1200, "macs_3s": 3e8,
        "inference_s": 0.0125, "inference_hardware": "A, 1 thread", "train_s": 600.0, "train_cpu_s": 1200.0,
        "hardware": "A, 2 threads", "num_train_speakers": num_train_speakers,
        "recipe": "plain",
    }  # fmt: skip
    rated = {name: {"eer": eer, "min_dcf": {"0.01": 10 * eer, "0.05": 5 * eer}} for name, eer in eers.items()}
    return RunResult(seed, {**usual, **rated, **figures}, {name: eer * difficulty + own for name, eer in eers.items()})


@pytest.fixture
def study() -> Study:
    return Study.of(
        {
            "ecapa_small": [result(1, 0.060, 0.120), result(2, 0.062, 0.124, train_cpu_s=None)],
            "fbank": [result(seed, eer, 2 * eer, recipe="fbank") for seed, eer in ((1, 0.061), (2, 0.0615))],
            "robust": [
                result(1, 0.0605, 0.060, recipe="robust"),
                result(2, 0.061, 0.062, recipe="robust", hardware="B"),
            ],
            "half": [result(1, 0.10, 0.20, num_train_speakers=50)],
            "robust_half": [result(1, 0.11, 0.21, num_train_speakers=50, recipe="robust")],
        },
        "ecapa_small",
    )


def row(study: Study, variant: str) -> pd.Series:
    return study.rows.set_index("variant").loc[variant]


def test_rows_hold_means_spreads_and_differences_of_hand_made_runs(study):
    base, robust = row(study, "ecapa_small"), row(study, "robust")
    assert base["eer_clean"] == pytest.approx(0.061) and base["eer_channel"] == pytest.approx(0.122)
    assert base["eer_clean_sd"] == pytest.approx(0.002 / np.sqrt(2)) and base["seeds"] == "1 2"
    assert robust["eer_channel_diff"] == pytest.approx(0.061 - 0.122)
    assert base["min_dcf_0.01_clean"] == pytest.approx(0.61) and base["min_dcf_0.05_channel"] == pytest.approx(0.61)
    assert robust["hardware"] == "A, 2 threads; B"
    assert base[["num_parameters", "macs_3s", "train_s", "inference_s"]].tolist() == [1000, 3e8, 600, 0.0125]
    assert np.isnan(row(study, "half")["eer_clean_sd"]) and np.isnan(base["eer_clean_diff"])


def test_rows_are_sorted_and_verdicts_separate_real_differences_from_none(study):
    assert study.rows["variant"].tolist() == ["robust", "ecapa_small", "fbank", "half", "robust_half"]
    verdicts = study.rows.set_index("variant")[["eer_clean_verdict", "eer_channel_verdict"]]
    assert verdicts.loc["robust"].tolist() == ["not distinguishable", "better"]
    assert verdicts.loc["fbank"].tolist() == ["not distinguishable", "not distinguishable"]
    assert verdicts.loc["half"].tolist() == ["worse", "worse"]
    assert verdicts.loc["ecapa_small"].tolist() == ["", ""]


def test_a_verdict_needs_the_interval_and_the_corrected_p_value():
    cases = [(-0.02, -0.01, 0.01), (-0.02, -0.01, 0.2), (-0.02, 0.0, 0.01), (0.01, 0.02, 0.2), (0.01, 0.02, 0.01)]
    found = [verdict(Estimate((lower + upper) / 2, lower, upper, 0.01), p_holm) for lower, upper, p_holm in cases]
    assert found == ["better", "perhaps better", "not distinguishable", "perhaps worse", "worse"]


def test_markdown_has_figures_in_per_cent_and_the_facts_of_the_notes(study):
    text = markdown(study)
    robust = next(line for line in text.splitlines() if "`robust`" in line)
    assert "| 6.10 |" in robust and "| -6.10 (" in robust and "| better |" in robust and "| 12.5 |" in robust
    assert "1,000 (1,200)" in robust and "| 300 |" in robust and "10 (20)" in robust
    assert "| base |" in next(line for line in text.splitlines() if line.startswith("| `ecapa_small`"))
    for fact in ("25 speakers and over seeds", "3 degrees of freedom", "4 comparisons", "about 0.2 intervals"):
        assert fact in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_study_without_a_finished_base_or_second_seeds_has_figures_but_no_differences():
    study = Study.of({"b": [result(1, 0.05, 0.1)]}, "a")
    assert study.spreads["clean"].num_spread == 0 and "over 25 speakers only" in markdown(study)
    assert study.rows["eer_clean"].tolist() == [0.05] and study.rows["eer_clean_diff"].isna().all()
    assert "With 0 comparisons" in markdown(study)


def test_rows_read_back_from_csv_are_enough_for_the_plots(study, tmp_path):
    study.rows.to_csv(tmp_path / "ablations.csv", index=False)
    rows = pd.read_csv(tmp_path / "ablations.csv")
    assert rows["eer_channel"].tolist() == pytest.approx(study.rows["eer_channel"].tolist(), abs=1e-15)
    plot_variants(rows, "ecapa_small", tmp_path / "variants.png")
    plot_data_size(rows, tmp_path / "size.png")
    for name in ("variants.png", "size.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_data_sizes_are_variants_that_differ_in_the_number_of_speakers_only(study):
    assert sorted(study.data_sizes()["variant"]) == ["ecapa_small", "half", "robust", "robust_half"]
    alone = Study.of({"a": [result(1, 0.1, 0.2)], "b": [result(1, 0.1, 0.2, 50, recipe="other")]}, "a")
    assert alone.data_sizes().empty
