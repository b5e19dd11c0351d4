"""Error rates of groups, and the worst speakers and trials: known answers, bands, groups that cannot be measured."""

import numpy as np
import pandas as pd
import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import make_trials
from voice_biometrics.evaluation.groups import group_utterances, measure_groups, worst_speakers, worst_trials
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.scored_trials import ScoredTrials


def corpus(num_speakers=12, num_utterances=4, seed=0, **columns):
    """A manifest and all its pairs with random scores, targets 2 higher; ``columns`` hold a value per speaker."""
    rng = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(num_speakers), num_utterances)
    manifest = pd.DataFrame(
        {
            "ID": [f"u{number}" for number in range(speaker.size)],
            "duration": rng.uniform(1.0, 10.0, speaker.size),
            "wav": "x.wav",
            "start": 0,
            "stop": 1,
            "spk_id": [f"s{number}" for number in speaker],
        }
    )
    for column, values in columns.items():
        manifest[column] = np.asarray(values)[speaker]
    trials = make_trials(manifest, None, seed=0)
    return trials.assign(score=rng.normal(size=len(trials)) + 2.0 * trials["target"]), manifest


def on_scores(measure, scores, manifest, threshold, **options):
    """Call ``measure`` with the scores of a table of trials."""
    return measure(ScoredTrials("clean", scores, manifest), scores["score"].to_numpy(), threshold, **options)


def rows_of(report, title):
    return {row.name: row for table in report.tables if table.title == title for row in table.rows}


def test_a_group_holds_the_trials_with_both_sides_in_it():
    genders = ["f", "m", "m"] * 4
    scores, manifest = corpus(gender=genders)
    report = on_scores(measure_groups, scores, manifest, 1.0)
    gender = manifest.set_index("ID")["gender"]
    sides = scores["enrol_id"].map(gender), scores["test_id"].map(gender)
    for name, row in rows_of(report, "gender").items():
        own = scores[(sides[0] == name) & (sides[1] == name)]
        target = own["target"] == 1
        assert (row.num_target, row.num_nontarget) == (target.sum(), (~target).sum())
        assert row.num_speakers == row.num_target_speakers == genders.count(name)
        assert row.eer.estimate == pytest.approx(equal_error_rate(own["score"], own["target"])[0], abs=1e-12)
        assert row.far.estimate == pytest.approx((own["score"][~target] >= 1.0).mean(), abs=1e-12)
        assert row.frr.estimate == pytest.approx((own["score"][target] < 1.0).mean(), abs=1e-12)
        assert row.far.lower < row.far.estimate < row.far.upper and row.far.num_replicates > 900
    assert set(rows_of(report, "gender")) == {"f", "m"}
    everyone = report.overall
    assert everyone.num_target + everyone.num_nontarget == len(scores) and everyone.num_speakers == 12
    assert on_scores(measure_groups, scores, manifest, 1.0, eer=everyone.eer) == report


def test_non_targets_across_groups_are_set_against_all_targets():
    scores, manifest = corpus(gender=["f", "m", "m"] * 4)
    gender = manifest.set_index("ID")["gender"]
    kind = (scores["enrol_id"].map(gender) + scores["test_id"].map(gender)).replace("mf", "fm")
    nontarget = scores["target"] == 0
    rows = rows_of(on_scores(measure_groups, scores, manifest, 1.0), "gender, non-targets within and across")
    assert list(rows) == ["f–f", "f–m", "m–m"]
    for name, row in rows.items():
        met = scores[nontarget & (kind == name.replace("–", ""))]
        assert row.num_target == (~nontarget).sum() and row.num_nontarget == len(met)
        assert row.far.estimate == pytest.approx((met["score"] >= 1.0).mean(), abs=1e-12)
        both = pd.concat([met, scores[~nontarget]])
        assert row.eer.estimate == pytest.approx(equal_error_rate(both["score"], both["target"])[0], abs=1e-12)


def test_trials_fall_into_bands_of_their_shorter_side():
    scores, manifest = corpus()
    manifest["duration"] = np.tile([1.999, 2.0, 5.0, 30.0], 12)
    rows = rows_of(on_scores(measure_groups, scores, manifest, 1.0), "duration of the shorter side")
    assert list(rows) == ["under 2 s", "2-4 s", "4-8 s", "16 s and over"]
    assert sum(row.num_target + row.num_nontarget for row in rows.values()) == len(scores)
    assert [row.num_target for row in rows.values()] == [36, 24, 12, 0]
    assert rows["16 s and over"].remark == "no target trials" and rows["16 s and over"].eer is None


def test_groups_that_cannot_be_measured_say_why_and_those_of_few_speakers_know_little():
    dialect = ["a"] * 6 + ["b"] + ["c"] * 2 + ["d", "e", ""]
    scores, manifest = corpus(dialect=dialect)
    speaker = manifest.set_index("ID")["spk_id"]
    alone = (scores["enrol_id"].map(speaker) == "s9") & (scores["target"] == 1)
    report = on_scores(measure_groups, scores[~alone], manifest, 1.0)
    rows = rows_of(report, "dialect")
    assert list(rows) == ["a", "b", "c", "d", "e"]
    assert rows["b"].remark == "a single speaker, so no non-target trials" and rows["b"].num_target == 6
    assert rows["d"].remark == "no trial has both sides in it" and rows["d"].num_speakers == 0
    assert (rows["c"].far.lower, rows["c"].far.upper) == (0.0, 1.0)  # two speakers: each usable draw holds both
    assert "few speakers" in rows["c"].remark and "few speakers" not in report.overall.remark
    assert {table.title: table.remark for table in report.tables}["dialect"] == "4 of 48 utterances without a value"
    within_b = rows_of(on_scores(measure_groups, *corpus(dialect=["a"] * 11 + ["b"]), 1.0), "dialect")["b"]
    assert within_b.eer is None and within_b.num_target_speakers == 1


def test_columns_that_make_no_groups_are_skipped_with_the_reason():
    _, manifest = corpus(language=["en"] * 12, nickname=[f"n{number}" for number in range(12)])
    manifest["sentence"] = [f"words {number}" for number in range(len(manifest))]
    manifest["empty"] = ""
    scores = make_trials(manifest, None, seed=0).assign(score=np.random.default_rng(0).normal(size=1128))
    report = on_scores(measure_groups, scores, manifest, 0.0)
    assert report.skipped == {
        "language": "one value only (en)",
        "sentence": "48 different values, taken for an identifier or free text",
        "empty": "no values",
    }
    assert [table.title for table in report.tables] == ["nickname", "duration of the shorter side"]
    assert all(row.eer is None for row in report.tables[0].rows)


def test_utterances_without_trials_do_not_count():
    scores, manifest = corpus(gender=["f", "m"] * 6)
    more = manifest.assign(ID="other" + manifest["ID"], gender="x")
    expected = on_scores(measure_groups, scores, manifest, 1.0)
    assert on_scores(measure_groups, scores, pd.concat([more, manifest]), 1.0) == expected


def test_bad_trials_are_named():
    scores, manifest = corpus()
    with pytest.raises(InputError, match="trial 1: enrol_id u0 is not among the 47 utterances"):
        on_scores(measure_groups, scores, manifest.iloc[1:], 1.0)
    with pytest.raises(InputError, match=r"trial u0 u1 is labelled non-target, .* s0 and s0 \(1 such"):
        on_scores(measure_groups, scores.assign(target=scores["target"] * (scores.index > 0)), manifest, 1.0)


def test_values_become_groups_in_their_order():
    for column, values, expected in [
        ("age", ["5", "6", "12", "12.9", "13", "18", "44", "45", "60", "90"],
         ["under 6", "6-12", "6-12", "6-12", "13-17", "18-29", "30-44", "45-59", "60 and over", "60 and over"]),
        ("age", ["twenties", "teens", "twenties"], ["twenties", "teens", "twenties"]),
        ("device", [2, 10, 1], ["2", "10", "1"]),
        ("snr_db", [-3.25, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.5],
         ["-3.25 to 1"] * 3 + ["2 to 4"] * 3 + ["5 to 7"] * 3 + ["8 to 10.5"] * 3),
        ("room", ["  a", "b ", None, "", "a"], ["a", "b", None, None, "a"]),
    ]:  # fmt: skip
        groups, _ = group_utterances(column, pd.Series(values))
        assert [None if pd.isna(group) else group for group in groups] == expected, column
    ages = group_utterances("age", pd.Series(["70", "8", "20"]))[0]
    assert ages.categories.tolist() == ["6-12", "18-29", "60 and over"]
    assert group_utterances("device", pd.Series(["10", "9", "1"]))[0].categories.tolist() == ["1", "9", "10"]


def test_identifiers_make_no_groups():
    for values in (
        [f"{number:04d}" for number in range(30)],  # 0007 is a name
        list(range(30)),  # counts the utterances
        [f"word{number}" for number in range(21)],
    ):
        groups, reason = group_utterances("number", pd.Series(values))
        assert groups is None and f"{len(values)} different values" in reason


MANIFEST = pd.DataFrame(
    {"ID": ["a1", "a2", "b1", "b2", "c1", "c2", "d1"], "spk_id": list("aabbccd"), "wav": [f"{n}.wav" for n in range(7)]}
)
SCORES = pd.DataFrame(
    [
        ("a1", "a2", 1, 0.2),  # missed by 0.3
        ("b1", "b2", 1, 0.9),
        ("c1", "c2", 1, 0.5),  # on the threshold: accepted
        ("a1", "b1", 0, 0.6),  # let in by 0.1
        ("b2", "a2", 0, 0.7),  # let in by 0.2
        ("c1", "a1", 0, 0.9),  # let in by 0.4
        ("c1", "b1", 0, 0.1),
        ("c2", "b1", 0, 0.5),  # let in by 0.0
        ("d1", "b1", 0, 0.0),
    ],
    columns=["enrol_id", "test_id", "target", "score"],
)


def test_speakers_are_ordered_by_the_mean_of_their_rates():
    table = on_scores(worst_speakers, SCORES, MANIFEST, 0.5)
    assert table["spk_id"].tolist() == ["a", "c", "b"]  # d has no error
    assert table["num_target"].tolist() == [1, 1, 1] and table["num_false_rejects"].tolist() == [1, 0, 0]
    assert table["num_nontarget"].tolist() == [3, 3, 5] and table["num_false_accepts"].tolist() == [3, 2, 3]
    np.testing.assert_allclose(table["frr"], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(table["far"], [1.0, 2 / 3, 3 / 5])
    np.testing.assert_allclose(table["mean_error"], [1.0, 1 / 3, 0.3])
    assert table["confused_with"].tolist() == ["b", "a", "a"]  # c: 1 of 1 with a comes before 1 of 2 with b
    assert table["num_confused"].tolist() == [2, 1, 2] and table["num_met"].tolist() == [2, 1, 2]
    assert on_scores(worst_speakers, SCORES, MANIFEST, 0.5, count=1)["spk_id"].tolist() == ["a"]


def test_a_rate_without_trials_is_left_out_of_the_mean_and_nobody_confused_is_none():
    table = on_scores(worst_speakers, SCORES, MANIFEST, 0.0).set_index("spk_id")
    assert np.isnan(table.loc["d", "frr"]) and table.loc["d", "mean_error"] == table.loc["d", "far"] == 1.0
    strict = on_scores(worst_speakers, SCORES, MANIFEST, 0.95).set_index("spk_id")
    assert list(strict.index) == ["a", "b", "c"] and strict["confused_with"].isna().all()
    assert strict["num_confused"].tolist() == [0, 0, 0]


def test_trials_are_ordered_by_their_distance_from_the_threshold():
    table = on_scores(worst_trials, SCORES, MANIFEST, 0.5)
    assert table["error"].tolist() == ["false accept"] * 4 + ["false reject"]
    assert table[["enrol_id", "test_id"]].to_numpy().tolist() == [
        ["c1", "a1"], ["b2", "a2"], ["a1", "b1"], ["c2", "b1"], ["a1", "a2"],
    ]  # fmt: skip
    first = table.iloc[0]
    assert (first["score"], first["enrol_wav"], first["test_wav"]) == (0.9, "4.wav", "0.wav")
    assert (first["enrol_spk_id"], first["test_spk_id"]) == ("c", "a")
    assert on_scores(worst_trials, SCORES, MANIFEST, 0.5, count=2)["score"].tolist() == [0.9, 0.7, 0.2]


def test_a_system_without_errors_has_no_worst():
    sound = SCORES.assign(score=SCORES["target"])
    assert on_scores(worst_speakers, sound, MANIFEST, 0.5).empty and on_scores(worst_trials, sound, MANIFEST, 0.5).empty


def test_an_utterance_that_is_not_in_the_manifest_is_named():
    with pytest.raises(InputError, match="trial 9: enrol_id d1 is not among the 6 utterances"):
        on_scores(worst_speakers, SCORES, MANIFEST.iloc[:6], 0.5)
