"""Results of a study: one row per variant, as CSV with all digits, as Markdown and as plots.

``ablations.csv`` is sorted by the EER under ``channel``. Per condition (clean, channel): ``eer_<condition>``, the mean
over seeds (a fraction), ``_lower`` and ``_upper``, its 95 % interval over speakers and seeds, ``_sd`` over seeds (empty
with one), ``_diff``, ``_diff_lower`` and ``_diff_upper``, the difference from the base with its interval, ``_p_holm``,
its p-value corrected for the number of variants, ``_verdict``, ``_seeds``, the EER of each seed, and
``min_dcf_<prior>_<condition>``. Then ``num_train_speakers``, ``num_parameters`` (embedding network),
``num_parameters_with_head``, ``macs_3s``, ``train_s``, ``train_cpu_s`` and ``inference_s`` (seconds, medians over
seeds), ``hardware``, ``inference_hardware``, and ``recipe``, equal for variants that differ in the amount of data only.

Table and plots are made from these rows, so they can be made again without the runs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from voice_biometrics.ablation.fingerprint import recipe_of
from voice_biometrics.ablation.plan import PlannedRun
from voice_biometrics.ablation.statistics import Estimate, RunSpread, difference, holm, mean_over_runs
from voice_biometrics.common.files import written_whole
from voice_biometrics.common.markdown import MISSING, Markdown, bullets, table
from voice_biometrics.common.plot_style import BLACK, BLUE, VERMILION, quiet_axes, save_figure
from voice_biometrics.experiment.run_folder import read_epochs

CONDITIONS = ("clean", "channel")
SIZE_AND_TIME = (
    "num_parameters", "num_parameters_with_head", "macs_3s", "train_s", "train_cpu_s", "inference_s",
)  # fmt: skip
COLOURS = dict(zip(CONDITIONS, (BLUE, VERMILION), strict=True))
MARKERS = dict(zip(CONDITIONS, ("o", "s"), strict=True))
CURVES = [{"color": colour, "marker": marker} for colour, marker in zip((BLUE, VERMILION, BLACK), "os^", strict=True)]


class RunResult(NamedTuple):
    """A finished run: seed, figures, and condition -> EERs (draws,), see ``statistics.speaker_draws``."""

    seed: int
    figures: dict
    draws: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Study:
    """The rows of a study, and the facts for its notes.

    rows : one per variant, see the module.
    num_speakers : held-out speakers. spreads : condition -> spread of runs over seeds.
    """

    rows: pd.DataFrame
    base: str
    num_speakers: int
    spreads: Mapping[str, RunSpread]

    @classmethod
    def of(cls, results: Mapping[str, Sequence[RunResult]], base: str) -> "Study":
        """Compare variants, name -> finished runs, with the base if it is among them."""
        num_speakers = next(iter(results.values()))[0].figures["num_valid_speakers"]
        rows = {name: {"variant": name, **_facts(runs)} for name, runs in results.items()}
        spreads = {}
        for condition in CONDITIONS:
            draws = {name: np.stack([run.draws[condition] for run in runs]) for name, runs in results.items()}
            spreads[condition] = spread = RunSpread.of(list(draws.values()))
            others = [name for name in draws if name != base and base in draws]
            changes = {name: difference(draws[name], draws[base], spread, num_speakers) for name in others}
            p_holm = dict(zip(others, holm([change.p_value for change in changes.values()]), strict=True))
            for name, row in rows.items():
                mean, change = mean_over_runs(draws[name], spread, num_speakers), changes.get(name)
                row |= _columns(f"eer_{condition}", mean) | _columns(f"eer_{condition}_diff", change)
                row[f"eer_{condition}_p_holm"] = p_holm.get(name, np.nan)
                row[f"eer_{condition}_verdict"] = verdict(change, p_holm[name]) if change else ""
        table = pd.DataFrame(rows.values())
        table = table.sort_values([f"eer_{name}" for name in reversed(CONDITIONS)], ignore_index=True)
        return cls(table, base, num_speakers, spreads)

    def data_sizes(self) -> pd.DataFrame:
        """Return the rows of variants that differ from another one in the number of training speakers only."""
        return self.rows[self.rows.groupby("recipe")["num_train_speakers"].transform("nunique") > 1]


def write_results(runs: Sequence[PlannedRun], base: str, folder: Path) -> None:
    """Write tables and plots of the finished runs to ``folder``; nothing if there are none.

    Runs whose evaluation is out of date are left out.
    """
    results: dict[str, list[RunResult]] = {}
    for run in runs:
        state = run.state
        if state.get("trained") and state["evaluated_from"] == run.evaluated_from:
            results.setdefault(run.variant, []).append(read_result(run))
    if not results:
        return
    study = Study.of(results, base)
    with written_whole(folder / "ablations.csv") as temporary:
        study.rows.to_csv(temporary, index=False)
    with written_whole(folder / "ablations.md") as temporary:
        temporary.write_text(markdown(study), encoding="utf-8")
    plot_variants(study.rows, base, folder / "ablations.png")
    sizes = study.data_sizes()
    if len(sizes):
        plot_data_size(sizes, folder / "data_size.png")


def read_result(run: PlannedRun) -> RunResult:
    """Return the output of score_run.py for a run, with time and hardware of its training."""
    folder = run.folder / "study"
    state = run.state
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    figures |= {
        "train_s": sum(row["train_seconds"] for row in read_epochs(run.folder)),
        "train_cpu_s": state["train_cpu_s"],
        "hardware": state["hardware"],
        "num_train_speakers": run.num_speakers,
        "recipe": recipe_of(run.fingerprint),
    }
    return RunResult(run.seed, figures, {name: np.load(folder / f"{name}.npy") for name in CONDITIONS})


def _facts(runs: Sequence[RunResult]) -> dict:
    """Return the columns that need no comparison."""
    figures = pd.DataFrame([run.figures for run in runs])
    facts = {"seeds": " ".join(str(run.seed) for run in runs)}
    for condition in CONDITIONS:
        eers = [run.figures[condition]["eer"] for run in runs]
        facts[f"eer_{condition}_seeds"] = " ".join(f"{eer:.6f}" for eer in eers)
        facts[f"eer_{condition}_sd"] = np.std(eers, ddof=1) if len(eers) > 1 else np.nan
        dcfs = pd.DataFrame([run.figures[condition]["min_dcf"] for run in runs]).mean()
        facts |= {f"min_dcf_{prior}_{condition}": value for prior, value in dcfs.items()}
    facts |= {name: figures[name].iloc[0] for name in ("num_train_speakers", "recipe")}
    facts |= {name: figures[name].astype(float).median() for name in SIZE_AND_TIME}
    return facts | {name: "; ".join(sorted(set(figures[name]))) for name in ("hardware", "inference_hardware")}


def _columns(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Return value and interval as three columns."""
    values = (estimate.value, estimate.lower, estimate.upper) if estimate else [np.nan] * 3
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), values, strict=True))


def verdict(change: Estimate, p_holm: float) -> str:
    """Return the verdict on a difference from the base (lower is better) with its corrected p-value."""
    if change.lower <= 0.0 <= change.upper:
        return "not distinguishable"
    return ("" if p_holm < 0.05 else "perhaps ") + ("better" if change.upper < 0.0 else "worse")


def markdown(study: Study) -> str:
    """Return the table and its notes as Markdown."""
    priors = [name.split("_")[2] for name in study.rows.columns if name.startswith("min_dcf") and "clean" in name]
    columns = ["variant", "seeds"]
    for condition in CONDITIONS:
        columns += [f"EER {condition} %", "± seeds", Markdown(f"difference from `{study.base}` (95 % CI)"), "verdict"]
    columns += [f"minDCF {' / '.join(priors)} clean", "channel", "speakers", "parameters (with head)", "MMACs, 3 s"]
    columns += ["training min (CPU)", "inference ms", "hardware"]
    cells = [_cells(row, priors) for _, row in study.rows.iterrows()]
    return f"{table(columns, cells, left=columns)}\n\n{bullets(_notes(study))}\n"


def _cells(row: pd.Series, priors: Sequence[str]) -> list[str | None]:
    """Return the cells of one variant."""
    cells = [Markdown(f"`{row['variant']}`"), row["seeds"]]
    for condition in CONDITIONS:
        eer = f"eer_{condition}"
        change, lower, upper = (_per_cent(row[f"{eer}_diff{end}"], "+") for end in ("", "_lower", "_upper"))
        cells += [_per_cent(row[eer]), _per_cent(row[f"{eer}_sd"])]
        cells += [change and f"{change} ({lower} to {upper})", row[f"{eer}_verdict"] or "base"]
    for condition in CONDITIONS:
        cells.append(" / ".join(f"{row[f'min_dcf_{prior}_{condition}']:.3f}" for prior in priors))
    cpu = MISSING if np.isnan(row["train_cpu_s"]) else f"{row['train_cpu_s'] / 60:.0f}"
    return [
        *cells,
        f"{row['num_train_speakers']:,}",
        f"{row['num_parameters']:,.0f} ({row['num_parameters_with_head']:,.0f})",
        f"{row['macs_3s'] / 1e6:,.0f}",
        f"{row['train_s'] / 60:.0f} ({cpu})",
        f"{1000 * row['inference_s']:.1f}",
        row["hardware"],
    ]


def _per_cent(rate: float, sign: str = "") -> str | None:
    """Return two decimals, so that a difference of 0 by rounding is +0.00."""
    return None if np.isnan(rate) else f"{100 * rate:{sign}.2f}"


def _notes(study: Study) -> list[Markdown]:
    """Return the notes below the table."""
    num_compared = max(0, len(study.rows) - 1) if study.base in set(study.rows["variant"]) else 0
    sds = ", ".join(f"{name} {100 * spread.relative_sd():.1f} %" for name, spread in study.spreads.items())
    num_spread = study.spreads["clean"].num_spread
    seeds = (
        f"and over seeds. Standard deviation over seeds, as a share of the EER: {sds} (pooled over the variants with "
        f"two or more seeds, {num_spread} degrees of freedom; used for variants with one seed too)."
        if num_spread
        else "only: no variant has a second seed, so the intervals are too narrow. Give two or more --seeds."
    )
    texts = (
        "Sorted by the EER under `channel`. All figures are for the same held-out speakers of the training part, which "
        "also selected the checkpoints; picking the best row selects on them again, so expect a higher EER on other "
        "speakers.",
        f"95 % confidence intervals (CI) are over {study.num_speakers} speakers {seeds}",
        f"`not distinguishable`: the interval of the difference contains 0. With {num_compared} comparisons in each "
        f"condition, about {0.05 * num_compared:.2g} intervals exclude 0 by chance; `better` and `worse` also have a "
        "p-value below 0.05 after Holm's correction for all of them, `perhaps better` and `perhaps worse` have not.",
        "Parameters and multiply-accumulates (convolutions and matrix products) are those of the embedding network, "
        "without features. Inference: from 3 s of samples to the embedding on one CPU thread, median. Training: "
        f"time of the epochs (CPU time of the process; {MISSING} if it was interrupted). Times on a busy machine, or "
        "with several --jobs, are too long. minDCF: c_miss = c_fa = 1.",
    )
    return [Markdown(text) for text in texts]


def plot_variants(rows: pd.DataFrame, base: str, path: Path) -> None:
    """Plot mean EER, 95 % interval and seeds of each variant, one panel per condition (PNG).

    Filled markers differ from the base after correction for the number of variants. Intervals share the speakers, so
    variants with overlapping intervals can still differ.
    """
    figure = Figure(figsize=(9.0, 1.9 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(CONDITIONS), sharey=True)
    for panel, condition in zip(panels, CONDITIONS, strict=True):
        _draw_variants(panel, rows, condition, base)
    panels[0].set_yticks(range(len(rows)), rows["variant"])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("filled: better or worse than the base (black); bars: 95 % CI; dots: seeds", fontsize=9)
    save_figure(figure, path)


def _draw_variants(panel: Axes, rows: pd.DataFrame, condition: str, base: str) -> None:
    """Draw markers, intervals and seeds of one condition, and a line at the base."""
    for place, row in enumerate(rows.to_dict("records")):
        lower, mean, upper = (100 * row[f"eer_{condition}{end}"] for end in ("_lower", "", "_upper"))
        colour, is_base = COLOURS[condition], row["variant"] == base
        panel.plot([lower, upper], [place, place], color=colour, linewidth=1.2, zorder=2)
        if is_base:
            colour = BLACK
            panel.axvline(mean, color="0.5", linewidth=0.8, linestyle="--", zorder=1)
        face = colour if is_base or row[f"eer_{condition}_verdict"] in ("better", "worse") else "white"
        panel.plot(mean, place, MARKERS[condition], color=colour, markerfacecolor=face, markersize=7, zorder=3)
        seeds = [100 * float(value) for value in str(row[f"eer_{condition}_seeds"]).split()]
        panel.plot(seeds, [place + 0.25] * len(seeds), ".", color="0.4", markersize=4, zorder=2)
    panel.set_xlabel(f"EER on held-out speakers, {condition} (%)")
    panel.set_xlim(left=0.0)
    quiet_axes(panel)


def plot_data_size(rows: pd.DataFrame, path: Path) -> None:
    """Plot the EER with its 95 % interval against the number of training speakers, on logarithmic axes (PNG).

    A panel for each condition, a curve for each recipe, called by its variant with the most speakers.
    """
    curves = [curve.sort_values("num_train_speakers") for _, curve in rows.groupby("recipe", sort=False)]
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    for axes, condition in zip(figure.subplots(1, len(CONDITIONS), sharey=True), CONDITIONS, strict=True):
        for curve, look in zip(curves, cycle(CURVES), strict=False):
            lower, mean, upper = (100 * curve[f"eer_{condition}{end}"].to_numpy() for end in ("_lower", "", "_upper"))
            speakers, name = curve["num_train_speakers"].to_numpy(float), curve["variant"].iloc[-1]
            axes.errorbar(speakers, mean, np.abs([mean - lower, upper - mean]), capsize=3, label=name, **look)
        axes.set(xscale="log", yscale="log", xlabel="training speakers", title=condition)
        sizes = np.unique(rows["num_train_speakers"])
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatter(StrMethodFormatter("{x:g}"))
        quiet_axes(axes)
    figure.axes[0].set_ylabel("EER on held-out speakers (%)")
    figure.axes[0].legend(frameon=False)
    save_figure(figure, path)
