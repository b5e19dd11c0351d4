"""The table of a study as Markdown, with what a reader must know under it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.files import written_whole
from voice_biometrics.study.table import CONDITIONS, Study


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
