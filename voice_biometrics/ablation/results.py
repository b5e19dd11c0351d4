"""The runs of a study to one row a variant: CSV with all digits, Markdown to read.

``ablations.csv`` has a row a variant, the best first. For each condition (clean, channel): ``eer_<condition>``, the
mean over seeds (a fraction), ``_lower`` and ``_upper``, its 95 % interval over speakers and seeds, ``_sd`` over seeds
(empty with one), ``_diff``, ``_diff_lower``, ``_diff_upper``: less that of the base, with its interval, ``_p_holm``,
the p-value of no difference corrected for the number of variants, ``_verdict``; ``_seeds``, the EER of each seed, and
``min_dcf_<prior>_<condition>``. Then ``num_train_speakers``, ``num_parameters`` (embedding network),
``num_parameters_with_head``, ``macs_3s``, ``train_s``, ``train_cpu_s`` and ``inference_s`` (medians over seeds, in
seconds), ``hardware``, ``inference_hardware``, and ``recipe``, equal for variants that differ in their data alone.

The table of a study as Markdown, with what a reader must know under it.

Pictures of a study: the EER of each variant, and the EER against the number of speakers trained on.

Both are drawn from the rows of ``ablations.csv`` (see ``table``), so they can be drawn again without the runs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from voice_biometrics.ablation.plan import PlannedRun, RunState, Task
from voice_biometrics.ablation.statistics import Estimate, RunSpread, difference, holm, mean_over_runs
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.plot_style import BLACK, BLUE, VERMILION, quiet_axes, save_figure
from voice_biometrics.experiment.run_folder import read_epochs

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


def write_markdown(study: Study, path: Path) -> None:
    """Write the table to read, and the notes under it."""
    with written_whole(path) as temporary:
        temporary.write_text(markdown(study), encoding="utf-8")


def markdown(study: Study) -> str:
    """Return the table and its notes as Markdown."""
    priors = [name.split("_")[2] for name in study.rows.columns if name.startswith("min_dcf") and "clean" in name]
    header = ["variant", "seeds"]
    for condition in CONDITIONS:
        header += [f"EER {condition} %", "± seeds", f"less {study.base} (95 %)", "verdict"]
    header += [f"minDCF {' / '.join(priors)} clean", "channel", "speakers", "parameters (with head)", "MMACs, 3 s"]
    header += ["training min (CPU)", "inference ms", "trained on"]
    lines = [header, ["---"] * len(header), *(_cells(row, priors) for _, row in study.rows.iterrows())]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n" + "\n".join(f"- {note}" for note in notes(study)) + "\n"


def _cells(row: pd.Series, priors: Sequence[str]) -> list[str]:
    """Return one row's text."""
    cells = [f"`{row['variant']}`", row["seeds"]]
    for condition in CONDITIONS:
        eer = f"eer_{condition}"
        ends = [_per_cent(row[f"{eer}_diff{end}"], "+") for end in ("", "_lower", "_upper")]
        cells += [_per_cent(row[eer]), _per_cent(row[f"{eer}_sd"])]
        cells += ["{} ({} to {})".format(*ends) if ends[0] != "-" else "-", row[f"{eer}_verdict"] or "the base"]
    for condition in CONDITIONS:
        cells.append(" / ".join(f"{row[f'min_dcf_{prior}_{condition}']:.3f}" for prior in priors))
    cells += [
        f"{row['num_train_speakers']:,}",
        f"{row['num_parameters']:,.0f} ({row['num_parameters_with_head']:,.0f})",
    ]
    cpu = "-" if np.isnan(row["train_cpu_s"]) else f"{row['train_cpu_s'] / 60:.0f}"
    cells += [f"{row['macs_3s'] / 1e6:,.0f}", f"{row['train_s'] / 60:.0f} ({cpu})", f"{1000 * row['inference_s']:.1f}"]
    return [*cells, row["hardware"]]


def _per_cent(rate: float, sign: str = "") -> str:
    return "-" if np.isnan(rate) else f"{100 * rate:{sign}.2f}"


def notes(study: Study) -> list[str]:
    """Say what a reader of the table must know."""
    num_compared = max(0, len(study.rows) - 1) if study.base in set(study.rows["variant"]) else 0
    return [
        "Sorted by the EER under `channel`; all figures are of the held-out speakers of the training part, the same "
        "for all variants. They chose each run's checkpoint, and whoever takes the first row chooses by them again: "
        "expect a higher EER on other speakers.",
        f"The 95 % intervals are over {study.num_speakers} speakers {_about_seeds(study)}",
        f"`not distinguishable`: the interval of the difference holds 0. With {num_compared} comparisons in each "
        f"condition about {0.05 * num_compared:.2g} intervals leave it out by chance alone; so `better` and `worse` "
        "also have a p-value below 0.05 after Holm's correction for all of them, `perhaps better` and `perhaps worse` "
        "have not.",
        "Parameters and multiply-accumulates (convolutions and matrix products, features left out) are those of the "
        "embedding network; inference is from samples to embedding of 3 s on one CPU thread, the median of 20; "
        "training is the time of the epochs, the CPU time that of the whole process (-: it was stopped in between). "
        "Times of runs that went on side by side, or on a busy machine, are too long. minDCF: c_miss = c_fa = 1.",
    ]


def _about_seeds(study: Study) -> str:
    """Say what is known of the spread of runs."""
    if not study.num_spread:
        return (
            "only: no variant has a second seed, so how much runs differ by chance is not known, and the intervals "
            "are too narrow. Give two --seeds or more."
        )
    sds = ", ".join(f"{name} {100 * sd:.1f} %" for name, sd in study.relative_sd.items())
    return (
        "and over seeds. Runs that differ in nothing but the seed have this standard deviation, as a share of their "
        f"EER: {sds} (pooled over the variants with two seeds or more, {study.num_spread} degrees of freedom; taken "
        "for those with one seed too)."
    )


COLOURS = dict(zip(CONDITIONS, (BLUE, VERMILION), strict=True))
MARKERS = dict(zip(CONDITIONS, ("o", "s"), strict=True))

LEGEND = "filled: better or worse than the base (black) beyond chance; bars: 95 % intervals; dots: seeds"


def plot_variants(rows: pd.DataFrame, base: str, path: Path) -> None:
    """Write the picture of ``variants_figure`` to ``path`` (PNG)."""
    save_figure(variants_figure(rows, base), path)


def plot_data_size(rows: pd.DataFrame, path: Path) -> None:
    """Write the picture of ``data_size_figure`` to ``path`` (PNG)."""
    save_figure(data_size_figure(rows), path)


def variants_figure(rows: pd.DataFrame, base: str) -> Figure:
    """Draw a line a variant, the best at the top, in a panel a condition: mean EER, its interval, and each seed.

    A filled mark is better or worse than the base after correction for the number of variants. The intervals share the
    speakers, so that two that overlap can differ all the same.
    """
    figure = Figure(figsize=(9.0, 1.9 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(CONDITIONS), sharey=True, squeeze=False)[0]
    for panel, condition in zip(panels, CONDITIONS, strict=True):
        _draw_variants(panel, rows, condition, base)
    panels[0].set_yticks(range(len(rows)), rows["variant"])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(LEGEND, fontsize=9)
    return figure


def _draw_variants(panel: Axes, rows: pd.DataFrame, condition: str, base: str) -> None:
    """Draw one condition: marks, bars, seeds, and a line at the base."""
    eer, colour, marker = f"eer_{condition}", COLOURS[condition], MARKERS[condition]
    for place, (_, row) in enumerate(rows.iterrows()):
        lower, mean, upper = (100 * row[f"{eer}{end}"] for end in ("_lower", "", "_upper"))
        is_base = row["variant"] == base
        told_apart = row[f"{eer}_verdict"] in (BETTER, WORSE)
        panel.plot([lower, upper], [place, place], color=colour, linewidth=1.2, zorder=2)
        face = BLACK if is_base else colour if told_apart else "white"
        panel.plot(
            mean, place, marker, color=BLACK if is_base else colour, markerfacecolor=face, markersize=7, zorder=3
        )
        seeds = [100 * float(value) for value in str(row[f"{eer}_seeds"]).split()]
        panel.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.4", markersize=4, zorder=2)
        if is_base:
            panel.axvline(mean, color="0.5", linewidth=0.8, linestyle="--", zorder=1)
    panel.set_xlabel(f"EER on held-out speakers, {condition} (%)")
    panel.set_xlim(left=0.0)
    quiet_axes(panel)


def data_size_figure(rows: pd.DataFrame) -> Figure:
    """Draw the EER with its interval against the number of speakers trained on, both axes logarithmic."""
    rows = rows.sort_values("num_train_speakers")
    speakers = rows["num_train_speakers"].to_numpy(float)
    figure = Figure(figsize=(7.0, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for condition in CONDITIONS:
        lower, mean, upper = (100 * rows[f"eer_{condition}{end}"].to_numpy() for end in ("_lower", "", "_upper"))
        errors = np.abs([mean - lower, upper - mean])
        style = {"color": COLOURS[condition], "marker": MARKERS[condition], "capsize": 3, "label": condition}
        axes.errorbar(speakers, mean, errors, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(speakers, [f"{row.variant}\n{row.num_train_speakers:,}" for row in rows.itertuples()], fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(ScalarFormatter())
    axes.set_xlabel("speakers trained on")
    axes.set_ylabel("EER on held-out speakers (%)")
    axes.legend(frameon=False)
    quiet_axes(axes)
    return figure
