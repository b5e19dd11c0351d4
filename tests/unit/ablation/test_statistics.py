"""Intervals over speakers and seeds: against a plain loop, and in cases where the answer is clear."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.ablation import statistics
from voice_biometrics.ablation.statistics import RunSpread, difference, holm, mean_over_runs, speaker_draws
from voice_biometrics.metrics.bootstrap import Spread, draw_speakers
from voice_biometrics.metrics.error_rates import equal_error_rate

NUM_SPEAKERS, NUM_UTTERANCES = 12, 4
SPEAKER_OF = pd.Series({f"s{s}u{u}": f"s{s}" for s in range(NUM_SPEAKERS) for u in range(NUM_UTTERANCES)})


def scores(distance: float, seed: int, common: int = 0) -> pd.DataFrame:
    """All pairs; the difficulty of a speaker is drawn with ``common``, the noise of a run with ``seed``."""
    ids = SPEAKER_OF.index.to_numpy()
    first, second = np.triu_indices(ids.size, 1)
    speaker = pd.factorize(SPEAKER_OF)[0]
    hard = 0.5 * np.random.default_rng(common).normal(size=NUM_SPEAKERS)
    target = speaker[first] == speaker[second]
    shift = np.where(target, distance + hard[speaker[first]], hard[speaker[first]] + hard[speaker[second]])
    values = shift + np.random.default_rng(seed).normal(size=first.size)
    return pd.DataFrame(
        {"enrol_id": ids[first], "test_id": ids[second], "target": target.astype(np.int8), "score": values}
    )


def runs(distance: float, *seeds: int) -> np.ndarray:
    return np.stack([speaker_draws(scores(distance, seed), SPEAKER_OF) for seed in seeds])


@pytest.fixture(scope="module")
def variants() -> dict[str, np.ndarray]:
    return {"base": runs(2.0, 1, 2, 3), "same": runs(2.0, 11, 12), "good": runs(3.5, 21, 22), "single": runs(3.5, 31)}


@pytest.fixture(scope="module")
def spread(variants) -> RunSpread:
    return RunSpread.of(list(variants.values()))


def eer_of_repeated(table: pd.DataFrame, times_of: dict[str, int]) -> float:
    enrol, test = (table[side].map(SPEAKER_OF).map(times_of).to_numpy() for side in ("enrol_id", "test_id"))
    times = np.where(table["target"] == 1, enrol, enrol * test)
    repeated = table.loc[table.index.repeat(times)]
    return equal_error_rate(repeated["score"].to_numpy(), repeated["target"].to_numpy() == 1)[0]


def test_the_joint_bootstrap_equals_a_plain_loop_over_speakers_and_seeds(variants, spread, monkeypatch):
    """Each replicate: the trials repeated as drawn, each run's EER, their mean, and each run's pooled deviation."""
    num_checked = 15
    names = np.array(sorted(set(SPEAKER_OF)))
    draws = draw_speakers(NUM_SPEAKERS, statistics.NUM_REPLICATES, statistics.SEED)
    rng = np.random.default_rng(statistics.SEED)
    figures = {name: [equal_error_rate_of(scores(*of)) for of in RUNS[name]] for name in ("good", "base")}
    pool = [
        (figure / np.mean(own) - 1.0) * np.sqrt(len(own) / (len(own) - 1))
        for own in ([equal_error_rate_of(scores(*of)) for of in RUNS[name]] for name in ("base", "same", "good"))
        for figure in own
    ]
    noise = {}
    for name in ("good", "base"):
        chosen = rng.choice(pool, (statistics.NUM_REPLICATES, len(RUNS[name])))
        noise[name] = [np.mean(figures[name]) * np.mean(row) for row in chosen]
    expected = []
    for number in range(1, 1 + num_checked):
        times_of = dict(zip(names, draws[number], strict=True))
        means = {name: np.mean([eer_of_repeated(scores(*of), times_of) for of in RUNS[name]]) for name in noise}
        joint = {name: means[name] + noise[name][number - 1] for name in noise}
        expected.append(joint["good"] - joint["base"])
    assert replicates_of(variants, spread, monkeypatch)[:num_checked] == pytest.approx(expected, abs=1e-9)


RUNS = {"base": [(2.0, 1), (2.0, 2), (2.0, 3)], "same": [(2.0, 11), (2.0, 12)], "good": [(3.5, 21), (3.5, 22)]}


def equal_error_rate_of(table: pd.DataFrame) -> float:
    return equal_error_rate(table["score"].to_numpy(), table["target"].to_numpy() == 1)[0]


def replicates_of(variants, spread, monkeypatch) -> np.ndarray:
    """The joint replicates, unsorted, as they reach the interval."""
    seen = []
    real = Spread.of

    def note(estimate, replicates, left_out, num_units):
        seen.append(replicates)
        return real(estimate, replicates, left_out, num_units)

    monkeypatch.setattr(statistics.Spread, "of", note)
    difference(variants["good"], variants["base"], spread, NUM_SPEAKERS)
    return seen[0]


def test_a_clear_difference_excludes_zero_and_a_difference_of_equals_contains_it(variants, spread):
    good = difference(variants["good"], variants["base"], spread, NUM_SPEAKERS)
    same = difference(variants["same"], variants["base"], spread, NUM_SPEAKERS)
    assert good.lower < good.value < good.upper < 0.0 and good.p_value < 0.01
    assert same.lower < 0.0 < same.upper and same.p_value > 0.05
    means = [mean_over_runs(variants[name], spread, NUM_SPEAKERS).value for name in ("good", "base")]
    assert good.value == pytest.approx(means[0] - means[1], abs=1e-12)
    assert means[1] == pytest.approx(np.mean([equal_error_rate_of(scores(*of)) for of in RUNS["base"]]), abs=1e-9)


def test_the_difference_of_a_variant_from_itself_varies_with_seeds_only(variants, spread):
    only_speakers = RunSpread.of([variants["single"]])
    alone = difference(variants["single"], variants["single"], only_speakers, NUM_SPEAKERS)
    assert (alone.value, alone.lower, alone.upper, alone.p_value) == (0.0, 0.0, 0.0, 1.0)
    with_seeds = difference(variants["single"], variants["single"], spread, NUM_SPEAKERS)
    assert with_seeds.lower < 0.0 < with_seeds.upper


def test_pairing_makes_the_interval_of_a_difference_narrower_than_unpaired_ones_would(variants):
    only_speakers = RunSpread.of([])
    found = difference(variants["same"], variants["base"], only_speakers, NUM_SPEAKERS)
    apart = [mean_over_runs(variants[name], only_speakers, NUM_SPEAKERS) for name in ("same", "base")]
    assert found.upper - found.lower < 0.85 * np.hypot(*(end.upper - end.lower for end in apart))


def test_run_spread_of_hand_made_figures():
    figures = np.array([[0.10, 0.0], [0.12, 0.0]]), np.array([[0.05, 0.0]]), np.array([[0.2], [0.2], [0.2]])
    spread = RunSpread.of(figures)
    assert spread.num_spread == 1 + 2
    one = 0.01 / 0.11 * np.sqrt(2)
    assert spread.deviations == pytest.approx([-one, one, 0, 0, 0])
    assert spread.relative_sd() == pytest.approx(np.sqrt(2 * one**2 / 5))
    unknown = RunSpread.of([figures[1], figures[0][:1]])
    assert unknown.num_spread == 0 and np.isnan(unknown.relative_sd())


def test_more_spread_of_seeds_makes_wider_intervals(variants, spread):
    wide = RunSpread(5 * spread.deviations, spread.num_spread)
    usual, more = (difference(variants["same"], variants["base"], each, NUM_SPEAKERS) for each in (spread, wide))
    assert more.upper - more.lower > 2 * (usual.upper - usual.lower)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0]) and holm([]).size == 0
