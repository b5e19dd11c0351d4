"""What a network costs: parameters, multiplications, time for an utterance; and on which hardware that was."""

import platform
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from voice_biometrics.embedding import embed

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
