"""The runs of a study to one row a variant: CSV with all digits, Markdown to read.

``ablations.csv`` has a row a variant, the best first. For each condition (clean, channel): ``eer_<condition>``, the
mean over seeds (a fraction), ``_lower`` and ``_upper``, its 95 % interval over speakers and seeds, ``_sd`` over seeds
(empty with one), ``_diff``, ``_diff_lower``, ``_diff_upper``: less that of the base, with its interval, ``_p_holm``,
the p-value of no difference corrected for the number of variants, ``_verdict``; ``_seeds``, the EER of each seed, and
``min_dcf_<prior>_<condition>``. Then ``num_train_speakers``, ``num_parameters`` (embedding network),
``num_parameters_with_head``, ``macs_3s``, ``train_s``, ``train_cpu_s`` and ``inference_s`` (medians over seeds, in
seconds), ``hardware``, ``inference_hardware``, and ``recipe``, equal for variants that differ in their data alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.files import written_whole
from voice_biometrics.run_folder import read_epochs
from voice_biometrics.study.paired import Estimate, RunSpread, difference, holm, mean_over_runs
from voice_biometrics.study.plan import PlannedRun, RunState, Task

CONDITIONS = ("clean", "channel")
COSTS = (
    "num_parameters", "num_parameters_with_head", "macs_3s", "train_s", "train_cpu_s", "inference_s",
)  # fmt: skip
BETTER, PERHAPS_BETTER, SAME, PERHAPS_WORSE, WORSE = (
    "better", "perhaps better", "not distinguishable", "perhaps worse", "worse",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run: its figures, and its EER under each draw of speakers, condition -> (draws,)."""

    seed: int
    figures: dict
    draws: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, run: PlannedRun) -> "RunResult":
        """Read what evaluation.py and the runner wrote."""
        folder = run.folder / "study"
        state = RunState.read(run.folder)
        figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        figures |= {
            "train_s": sum(row["train_seconds"] for row in read_epochs(run.folder)),
            "train_cpu_s": state.train_cpu_s,
            "hardware": state.hardware,
            "num_train_speakers": run.num_speakers,
            "recipe": run.fingerprint.recipe(),
        }
        return cls(run.seed, figures, {name: np.load(folder / f"{name}.npy") for name in CONDITIONS})


def read_results(tasks: Sequence[Task]) -> dict[str, list[RunResult]]:
    """Return variant -> its finished runs, those that were made from what the tasks say."""
    results: dict[str, list[RunResult]] = {}
    for task in tasks:
        state = RunState.read(task.run.folder)
        if state.trained and state.evaluated_from == task.evaluated_from:
            results.setdefault(task.run.variant, []).append(RunResult.read(task.run))
    return results


@dataclass(frozen=True)
class Study:
    """The table, and what a reader must know of it."""

    rows: pd.DataFrame
    base: str
    num_speakers: int
    relative_sd: Mapping[str, float]  # condition -> of one run, a share of its EER
    num_spread: int  # degrees of freedom behind it

    @classmethod
    def of(cls, results: Mapping[str, Sequence[RunResult]], base: str) -> "Study":
        """Compare the variants that have a finished run, name -> runs, with the base if it has one."""
        num_speakers = next(iter(results.values()))[0].figures["num_valid_speakers"]
        rows = pd.DataFrame([{"variant": name, **_facts(runs)} for name, runs in results.items()])
        spreads = {}
        for condition in CONDITIONS:
            draws = {name: np.stack([run.draws[condition] for run in runs]) for name, runs in results.items()}
            spreads[condition] = RunSpread.of(list(draws.values()))
            found = _estimates(draws, base, spreads[condition], num_speakers)
            rows = rows.assign(**{f"eer_{condition}{key}": values for key, values in found.items()})
        rows = rows.sort_values([f"eer_{name}" for name in reversed(CONDITIONS)], ignore_index=True)
        relative_sd = {name: spread.relative_sd() for name, spread in spreads.items()}
        return cls(rows, base, num_speakers, relative_sd, spreads["clean"].num_spread)

    def of_other_size(self) -> pd.DataFrame:
        """Return the rows of the base and of the variants that differ in the number of training speakers alone."""
        is_base = self.rows["variant"] == self.base
        is_alike = self.rows["recipe"].isin(self.rows.loc[is_base, "recipe"])
        is_other = ~self.rows["num_train_speakers"].isin(self.rows.loc[is_base, "num_train_speakers"])
        return self.rows[is_base | (is_alike & is_other)]


def _facts(runs: Sequence[RunResult]) -> dict:
    """Return what does not need a comparison."""
    figures = pd.DataFrame([run.figures for run in runs])
    facts = {"seeds": " ".join(str(run.seed) for run in runs)}
    for condition in CONDITIONS:
        eers = [run.figures[condition]["eer"] for run in runs]
        facts[f"eer_{condition}_seeds"] = " ".join(f"{eer:.6f}" for eer in eers)
        facts[f"eer_{condition}_sd"] = np.std(eers, ddof=1) if len(eers) > 1 else np.nan
        dcfs = pd.DataFrame([run.figures[condition]["min_dcf"] for run in runs]).mean()
        facts |= {f"min_dcf_{prior}_{condition}": value for prior, value in dcfs.items()}
    facts |= {name: figures[name].iloc[0] for name in ("num_train_speakers", "recipe")}
    facts |= {name: figures[name].astype(float).median() for name in COSTS}
    return facts | {name: "; ".join(sorted(set(figures[name]))) for name in ("hardware", "inference_hardware")}


def _estimates(draws: Mapping[str, np.ndarray], base: str, spread: RunSpread, num_speakers: int) -> dict[str, list]:
    """Return the columns of one condition, key -> a value a variant."""
    means = [mean_over_runs(runs, spread, num_speakers) for runs in draws.values()]
    columns = {
        "": [mean.value for mean in means],
        "_lower": [mean.lower for mean in means],
        "_upper": [mean.upper for mean in means],
    }
    others = [name for name in draws if name != base] if base in draws else []
    found = {name: difference(draws[name], draws[base], spread, num_speakers) for name in others}
    corrected = dict(zip(others, holm([found[name].p_value for name in others]), strict=True))
    for key, field in (("_diff", "value"), ("_diff_lower", "lower"), ("_diff_upper", "upper")):
        columns[key] = [getattr(found.get(name), field, np.nan) for name in draws]
    columns["_p_holm"] = [corrected.get(name, np.nan) for name in draws]
    columns["_verdict"] = [verdict(found[name], corrected[name]) if name in found else "" for name in draws]
    return columns


def verdict(found: Estimate, p_holm: float) -> str:
    """Say what a difference from the base, with its corrected p-value, is worth; lower is better."""
    if found.lower <= 0.0 <= found.upper:
        return SAME
    if found.upper < 0.0:
        return BETTER if p_holm < 0.05 else PERHAPS_BETTER
    return WORSE if p_holm < 0.05 else PERHAPS_WORSE


def write_csv(study: Study, path: Path) -> None:
    """Write the table with all digits."""
    with written_whole(path) as temporary:
        study.rows.to_csv(temporary, index=False)
