"""Score one finished run of a study on the study's held-out speakers: ``evaluation.py TRIALS [HPARAMS] [--key ...]``.

TRIALS is a folder with ``valid.csv`` (``wav`` without ``$data_root``) and ``valid_trials.csv``, the same for all runs;
the rest are the arguments of train.py. Started by run_ablations.py. Writes to ``<run folder>/study``, for each
condition (clean, channel): ``<condition>.parquet`` (scores) and ``<condition>.npy`` (the EER of all trials and of each
draw of speakers, see ``paired.speaker_draws``); and, last, ``figures.json``: EER, minDCF, size, multiplications, time.

What a network costs: parameters, multiplications, time for an utterance; and on which hardware that was.
"""

import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
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
from voice_biometrics.metrics.error_rates import Cost, summary
from voice_biometrics.scoring.score_files import write_scores

DURATION_S = 3.0
NUM_TIMED = 20


def count_parameters(modules: Iterable[torch.nn.Module]) -> int:
    """Return how many numbers of ``modules`` are learnt."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@torch.no_grad()
def count_macs(modules: torch.nn.ModuleDict, sample_rate: int, duration_s: float = DURATION_S) -> int:
    """Return the multiply-accumulates of the embedding network for one utterance: convolutions and matrix products.

    The features are left out (their Fourier transform is no matrix product), as are additions, activations and norms.
    Attention is counted as the matrix products that it is, not by its fused kernels, which PyTorch does not count on
    every device.
    """
    waves = torch.zeros(1, round(duration_s * sample_rate))
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


def time_inference(modules: torch.nn.ModuleDict, sample_rate: int, duration_s: float = DURATION_S) -> float:
    """Return the seconds from samples to embedding of one utterance, on one thread of the CPU: the median of 20."""
    rng = np.random.default_rng(0)
    waves = torch.as_tensor(0.1 * rng.standard_normal((1, round(duration_s * sample_rate))), dtype=torch.float32)
    network = modules.cpu().eval()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        embed(network, waves)  # the first call chooses kernels
        return float(np.median([_seconds(network, waves) for _ in range(NUM_TIMED)]))
    finally:
        torch.set_num_threads(num_threads)


def _seconds(network: torch.nn.ModuleDict, waves: torch.Tensor) -> float:
    started = time.perf_counter()
    embed(network, waves)
    return time.perf_counter() - started


def describe_hardware(device: str, num_threads: int) -> str:
    """Return the name of a GPU, or of the processor with the number of threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {num_threads} thread{'s' if num_threads > 1 else ''}"


def _processor() -> str:
    """Return the processor's name; Linux says it in /proc/cpuinfo only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


CONDITIONS = (CLEAN, *conditions_named("channel"))


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Load the run's best checkpoint, score under each condition, and write the figures."""
    trials_folder, rest = Path(arguments[0]), arguments[1:]
    run = TrainedRun.from_command_line(rest, __doc__)
    manifest = read_utterances(trials_folder / "valid.csv", {})
    trials = read_trials(trials_folder / "valid_trials.csv")
    folder = run.folder / "study"
    figures = {condition.name: evaluate(run, manifest, trials, condition, folder) for condition in CONDITIONS}
    write_json({**figures, **costs(run), **run_facts(run, manifest)}, folder / "figures.json")


def evaluate(
    run: TrainedRun, manifest: pd.DataFrame, trials: pd.DataFrame, condition: Condition, folder: Path
) -> dict[str, object]:
    """Score ``trials`` under one condition, write scores and draws, and return EER and minDCF."""
    scored = run.scorer.score(condition.name, run.embed(manifest, condition), manifest, trials)
    write_scores(scored.table, folder / f"{condition.name}.parquet")
    with written_whole(folder / f"{condition.name}.npy") as temporary:
        np.save(temporary, speaker_draws(scored.table, manifest.set_index("ID")["spk_id"]))
    found = summary(scored.scores, scored.is_target, [Cost(p_target) for p_target in run.settings["p_targets"]])
    return {"eer": found["eer"], "min_dcf": {f"{dcf['p_target']:g}": dcf["value"] for dcf in found["min_dcf"]}}


def costs(run: TrainedRun) -> dict:
    """Return sizes, multiplications and time of a run's network; the time is on the CPU."""
    network = run.modules.values()
    rate = run.sample_rate
    return {
        "num_parameters": count_parameters(network),
        "num_parameters_with_head": count_parameters(network) + run.num_head_parameters,
        "macs_3s": count_macs(run.modules, rate),
        "inference_s": time_inference(run.modules, rate),
        "inference_hardware": describe_hardware("cpu", 1),
    }


def run_facts(run: TrainedRun, manifest: pd.DataFrame) -> dict:
    """Return the checkpoint that was judged, and by how many speakers."""
    return {"epoch": run.checkpoint.meta.get("epoch"), "num_valid_speakers": int(manifest["spk_id"].nunique())}


if __name__ == "__main__":
    main(sys.argv[1:])
