"""Learning-rate schedules, weight averaging, and the settings of precision and memory for a machine."""

import ctypes
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from voice_biometrics.common.errors import InputError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def resolve_precision(precision: str, device: str | None) -> str:
    """Return ``precision``, with "auto" replaced: bf16 where it is faster than fp32 on ``device``, else fp32."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available() and device != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if processor_has_fast_bf16() else "fp32"


def processor_has_fast_bf16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Return True for processors with AMX, and AMD's with AVX-512's bf16: the network trains 1.8 times as fast there.

    With AVX-512's bf16 on Intel's it trains a fifth slower than in fp32.
    """
    if torch.cpu._is_amx_tile_supported():  # PyTorch has no public functions for it
        return True
    is_amd = cpu_info.is_file() and "AuthenticAMD" in cpu_info.read_text(encoding="utf-8")
    return is_amd and torch.cpu._is_avx512_bf16_supported()


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next batch (glibc only).

    By default every large tensor is mapped again and the system zeroes its pages, which took a third of the time of
    training on a CPU. Only for batches of one size: with whole utterances, memory grew from 9 to 14 GB by
    fragmentation.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))
        mallopt(M_TOP_PAD, ctypes.c_int(64 * 2**20))


class LearningRate:
    """Any scheduler of torch, stepped after each epoch, or after each step if it has an argument ``steps_per_epoch``.

    ``make_scheduler`` returns it for an optimiser; InputError if it refuses its arguments.
    """

    def __init__(
        self, make_scheduler: Callable[..., LRScheduler], optimizer: torch.optim.Optimizer, steps_per_epoch: int
    ) -> None:
        self.each_step = "steps_per_epoch" in inspect.signature(make_scheduler).parameters
        further = {"steps_per_epoch": steps_per_epoch} if self.each_step else {}
        try:
            self.scheduler = make_scheduler(optimizer, **further)
        except (TypeError, ValueError) as error:
            raise InputError(f"hparams key lr_annealing: {error}") from error

    def after_step(self) -> None:
        """Update the learning rate after a step of the optimiser."""
        if self.each_step:
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Update the learning rate after an epoch."""
        if not self.each_step:
            self.scheduler.step()


def average_of_weights(network: nn.Module, num_steps: float, steps_done: Callable[[], int]) -> AveragedModel:
    """Return a running average of a network's weights and BatchNorm statistics, for ``update_parameters`` per step.

    The weights of ``n`` steps ago count ``exp(-n / num_steps)``, and less in the first steps: those of step ``n`` are
    averaged with at most ``n / (n + 9)`` of the earlier ones. ``steps_done`` returns the number of the optimiser's
    steps. Raises InputError if ``num_steps`` is not positive.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the shorter average at
    the beginning is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """
    if num_steps <= 0:
        raise InputError(f"average_epochs: expected 0 or a positive number of epochs, found {num_steps:g} steps")

    def update(averaged: torch.Tensor, newest: torch.Tensor, _) -> torch.Tensor:
        decay = min(math.exp(-1 / num_steps), steps_done() / (steps_done() + 9))
        return averaged.lerp(newest, 1 - decay) if averaged.is_floating_point() else newest

    average = AveragedModel(network, avg_fn=update, use_buffers=True).requires_grad_(False).eval()
    average.n_averaged.fill_(1)  # the first update averages too, with the initial weights
    return average


def warm_up_stable_decay(
    optimizer: Optimizer, steps_per_epoch: int, number_of_epochs: float, warm_up_epochs: float, decay_epochs: float
) -> LambdaLR:
    """Raise the learning rate linearly, keep it, and lower it to 0 by ``1 - sqrt`` at the end; stepped once a step.

    Until the decay begins, the learning rate does not depend on ``number_of_epochs``: a run may be made longer or
    shorter while it is going on, and gives what it would have given when planned so. In a training that is too short
    for warm-up and decay both are shortened alike. Raises InputError if one of them is negative.

    Source: Haegele et al., "Scaling laws and compute-optimal training beyond fixed training durations", NeurIPS 2024,
    arXiv 2405.18392, section 3.
    """
    if min(warm_up_epochs, decay_epochs) < 0:
        raise InputError(f"learning rate: expected epochs of 0 or more, found {warm_up_epochs} and {decay_epochs}")
    changing_epochs = warm_up_epochs + decay_epochs
    share = min(1.0, number_of_epochs / changing_epochs) if changing_epochs else 1.0
    num_steps, num_up = number_of_epochs * steps_per_epoch, share * warm_up_epochs * steps_per_epoch
    num_down = share * decay_epochs * steps_per_epoch

    def factor(step: int) -> float:
        up = min(1.0, (step + 1) / num_up) if num_up else 1.0
        fallen = (step - (num_steps - num_down)) / num_down if num_down else 0.0
        return up * (1 - math.sqrt(min(1.0, max(0.0, fallen))))

    return LambdaLR(optimizer, factor)
