"""Score one trained run on the held-out speakers of a study: ``score_run.py TRIALS [HPARAMS] [--key ...]``.

TRIALS is a folder with ``valid.csv`` (full paths) and ``valid_trials.csv``, the same for all runs; the other arguments
are those of train.py. Writes to ``<run folder>/study``, for each condition (clean, channel), ``<condition>.parquet``
(scores) and ``<condition>.npy`` (EER of all trials and of each bootstrap replicate, see ``statistics.speaker_draws``);
and, last, ``figures.json``: EER, minDCF, size, multiply-accumulates and time of an inference.
"""

import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

import voice_biometrics  # noqa: F401 - before PyTorch, see there
from voice_biometrics.scoring.embeddings import embed

# isort: split
import pandas as pd

from voice_biometrics.ablation.statistics import speaker_draws
from voice_biometrics.common.errors import tell_input_errors
from voice_biometrics.common.files import write_json, written_whole
from voice_biometrics.common.manifest import read_utterances
from voice_biometrics.common.trial_lists import read_trials
from voice_biometrics.evaluation.conditions import CLEAN, Condition, conditions_named
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.metrics.error_rates import Cost
from voice_biometrics.scoring.score_files import write_scores

CONDITIONS = (CLEAN, *conditions_named("channel"))
DURATION_S = 3.0  # of the utterance whose computation is counted and timed
TIMED_S = 0.5


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Load the best checkpoint of the run, score under each condition, and write the figures."""
    trials_folder, rest = Path(arguments[0]), arguments[1:]
    run = TrainedRun.from_command_line(rest, __doc__)
    manifest = read_utterances(trials_folder / "valid.csv", {})
    trials = read_trials(trials_folder / "valid_trials.csv")
    folder = run.folder / "study"
    figures = {condition.name: evaluate(run, manifest, trials, condition, folder) for condition in CONDITIONS}
    facts = {"epoch": run.checkpoint.meta.get("epoch"), "num_valid_speakers": int(manifest["spk_id"].nunique())}
    write_json({**figures, **size_and_speed(run), **facts}, folder / "figures.json")


def evaluate(
    run: TrainedRun, manifest: pd.DataFrame, trials: pd.DataFrame, condition: Condition, folder: Path
) -> dict[str, object]:
    """Score ``trials`` under one condition, write scores and bootstrap replicates, and return EER and minDCF."""
    scored = run.scorer.score(condition.name, run.embed(manifest, condition), manifest, trials)
    write_scores(scored.table, folder / f"{condition.name}.parquet")
    with written_whole(folder / f"{condition.name}.npy") as temporary:
        np.save(temporary, speaker_draws(scored.table, manifest.set_index("ID")["spk_id"]))
    found = scored.rates.summary([Cost(p_target) for p_target in run.settings["p_targets"]])
    return {"eer": found["eer"], "min_dcf": {f"{dcf['p_target']:g}": dcf["value"] for dcf in found["min_dcf"]}}


def size_and_speed(run: TrainedRun) -> dict:
    """Return parameters, multiply-accumulates and inference time (on the CPU) of a run's network."""
    network = run.modules.values()
    rate = run.sample_rate
    return {
        "num_parameters": count_parameters(network),
        "num_parameters_with_head": count_parameters(network) + run.num_head_parameters,
        "macs_3s": count_macs(run.modules, rate),
        "inference_s": time_inference(run.modules, rate),
        "inference_hardware": describe_hardware("cpu", 1),
    }


def count_parameters(modules: Iterable[torch.nn.Module]) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@torch.no_grad()
def count_macs(modules: torch.nn.ModuleDict, sample_rate: int) -> int:
    """Return the multiply-accumulates of the embedding network for 3 s: convolutions and matrix products.

    Features, additions, activations and norms are not counted. Fused attention kernels are disabled, since PyTorch does
    not count them on every device.
    """
    waves = torch.zeros(1, round(DURATION_S * sample_rate))
    lengths = torch.ones(1)
    network = modules.cpu().eval()
    features = network["mean_var_norm"](network["compute_features"](waves), lengths)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network["embedding_model"](features, lengths)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2  # a multiplication and an addition each


def time_inference(modules: torch.nn.ModuleDict, sample_rate: int) -> float:
    """Return the median time, in seconds, from 3 s of samples to the embedding on one CPU thread."""
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, round(DURATION_S * sample_rate)))
    waves = torch.as_tensor(samples, dtype=torch.float32)
    known = {"embed": embed, "network": modules.cpu().eval(), "waves": waves}
    return Timer("embed(network, waves)", globals=known).blocked_autorange(min_run_time=TIMED_S).median


def describe_hardware(device: str, num_threads: int) -> str:
    """Return the name of a GPU, or of the processor with the number of threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    found = re.search(r"^model name\s*: (.*)", cpu_info.read_text() if cpu_info.is_file() else "", re.MULTILINE)
    processor = found[1] if found else platform.processor() or platform.machine()
    return f"{processor}, {num_threads} thread{'s' if num_threads > 1 else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
