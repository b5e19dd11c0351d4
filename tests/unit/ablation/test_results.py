"""A study's table and pictures from hand-made figures."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.ablation.results import (
    CONDITIONS,
    RunResult,
    Study,
    data_size_figure,
    markdown,
    plot_data_size,
    plot_variants,
    variants_figure,
    verdict,
    write_csv,
)
from voice_biometrics.ablation.statistics import NUM_REPLICATES, Estimate

NUM_SPEAKERS = 25


def result(seed: int, clean: float, channel: float, num_train_speakers: int = 100, **figures) -> RunResult:
    """A run whose EER under each draw of speakers is its figure times that draw's difficulty, plus a little."""
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
            "fbank": [result(1, 0.061, 0.121), result(2, 0.0615, 0.123)],
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


def test_rows_are_sorted_by_the_eer_under_channel(study):
    assert study.rows["variant"].tolist() == ["robust", "ecapa_small", "fbank", "half", "robust_half"]


def test_verdicts_tell_real_differences_from_none(study):
    verdicts = study.rows.set_index("variant")[["eer_clean_verdict", "eer_channel_verdict"]]
    assert verdicts.loc["robust"].tolist() == ["not distinguishable", "better"]
    assert verdicts.loc["fbank"].tolist() == ["not distinguishable", "not distinguishable"]
    assert verdicts.loc["half"].tolist() == ["worse", "worse"]
    assert verdicts.loc["ecapa_small"].tolist() == ["", ""]


@pytest.mark.parametrize(
    "lower, upper, p_holm, told",
    [
        (-0.02, -0.01, 0.01, "better"),
        (-0.02, -0.01, 0.2, "perhaps better"),
        (-0.02, 0.0, 0.01, "not distinguishable"),
        (0.01, 0.02, 0.2, "perhaps worse"),
        (0.01, 0.02, 0.01, "worse"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_corrected_p_value(lower, upper, p_holm, told):
    assert verdict(Estimate((lower + upper) / 2, lower, upper, 0.01), p_holm) == told


def test_markdown_says_per_cent_the_seeds_and_what_must_be_known(study):
    text = markdown(study)
    robust = next(line for line in text.splitlines() if "`robust`" in line)
    assert "| 6.10 |" in robust and "| -6.10 (" in robust and "| better |" in robust and "| 12.5 |" in robust
    assert "1,000 (1,200)" in robust and "| 300 |" in robust and "10 (20)" in robust
    assert "the base" in next(line for line in text.splitlines() if line.startswith("| `ecapa_small`"))
    assert "25 speakers and over seeds" in text and "3 degrees of freedom" in text
    assert "held-out speakers of the training part" in text
    assert "With 4 comparisons in each condition about 0.2 intervals" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_one_seed_each_is_said():
    study = Study.of({"a": [result(1, 0.06, 0.12)], "b": [result(1, 0.05, 0.1)]}, "a")
    assert study.num_spread == 0 and "over 25 speakers only" in markdown(study)


def test_a_study_whose_base_is_not_finished_has_figures_but_no_differences():
    study = Study.of({"b": [result(1, 0.05, 0.1)]}, "a")
    assert study.rows["eer_clean"].tolist() == [0.05] and study.rows["eer_clean_diff"].isna().all()
    assert "With 0 comparisons" in markdown(study)


def test_the_csv_reads_back_and_redraws_the_pictures(study, tmp_path):
    write_csv(study, tmp_path / "ablations.csv")
    rows = pd.read_csv(tmp_path / "ablations.csv")
    assert rows["eer_channel"].tolist() == pytest.approx(study.rows["eer_channel"].tolist(), abs=1e-15)
    plot_variants(rows, "ecapa_small", tmp_path / "variants.png")
    plot_data_size(rows, tmp_path / "size.png")
    for name in ("variants.png", "size.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_picture_fills_only_what_differs(study):
    panels = variants_figure(study.rows, "ecapa_small").axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == study.rows["variant"].tolist()
    filled = {
        condition: [line.get_markerfacecolor() != "white" for line in panel.lines if line.get_marker() in "os"]
        for condition, panel in zip(CONDITIONS, panels, strict=True)
    }
    assert filled == {"clean": [False, True, False, True, True], "channel": [True, True, False, True, True]}
    seeds = [line.get_xdata() for line in panels[1].lines if line.get_marker() == "."]
    assert list(seeds[0]) == pytest.approx([6.0, 6.2])


def test_data_size_is_drawn_on_a_logarithmic_axis_for_variants_that_differ_in_size_alone(study):
    sizes = study.of_other_size()
    assert sorted(sizes["variant"]) == ["ecapa_small", "half"]
    (axes,) = data_size_figure(sizes).axes
    assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == [50, 100]
    assert axes.lines[0].get_ydata() == pytest.approx([10.0, 6.1])
