"""What changes from step to step: the learning rate, and the running average of the weights.

Make the best of the machine at hand: its precision and its memory.
"""

import copy
import ctypes
import inspect
import math
import sys
from collections.abc import Callable

import torch
from speechbrain.utils.checkpoints import Checkpointer
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from voice_biometrics.common.errors import InputError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def resolve_precision(precision: str, device: str | None) -> str:
    """Return ``precision``, with "auto" replaced: bf16 where ``device`` computes it natively, else fp32."""
    if precision != "auto":
        return precision
    on_gpu = torch.cuda.is_available() and device != "cpu"
    native = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_computes_bf16()
    return "bf16" if native else "fp32"


def _cpu_computes_bf16() -> bool:
    """Tell whether the processor multiplies bf16 itself; PyTorch has no public question for it."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_freed_memory() -> None:
    """Let the process keep the memory of freed tensors for the next batch, where the C library is glibc.

    By default each large tensor is mapped afresh and its pages are zeroed by the system, which took a third of the time
    of training on a CPU. Only for batches of one size: with whole utterances the gaps do not fit, and memory grew from
    9 to 14 GB.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, ctypes.c_int(2**31 - 1))
        mallopt(M_TOP_PAD, ctypes.c_int(64 * 2**20))


class LearningRate:
    """Any of torch's schedulers, stepped after each epoch; or after each step, where it asks for ``steps_per_epoch``.

    Arguments
    ---------
    make_scheduler: makes the scheduler of an optimiser.
    optimizer: whose learning rate is set.
    steps_per_epoch: the optimiser's steps in an epoch.

    Raises
    ------
    InputError: the scheduler refuses its arguments.
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
        """Follow the optimiser's step."""
        if self.each_step:
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Follow the end of an epoch."""
        if not self.each_step:
            self.scheduler.step()


class WeightAverage:
    """A running average of a network's weights and BatchNorm statistics; this average is the network that counts.

    It is what checkpoints keep under the network's name, so that whatever loads a checkpoint gets it; the weights that
    are trained lie beside it for a run that goes on. BatchNorm's running means and variances are averaged with the same
    factors as the weights: the statistics of the newest weights would not suit their average.

    Arguments
    ---------
    network: whose weights are averaged; the average begins with a copy.
    num_steps: the optimiser's steps that the average reaches back: the weights of ``n`` steps ago count
        ``exp(-n / num_steps)``. While fewer steps are done it reaches back less.

    Raises
    ------
    InputError: ``num_steps`` is not above 0.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the shorter beginning is
    that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """

    def __init__(self, network: nn.Module, num_steps: float) -> None:
        if num_steps <= 0:
            raise InputError(f"average_epochs: expected 0, or epochs above it, found {num_steps:g} steps")
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.decay = math.exp(-1 / num_steps)

    def save_with(self, checkpointer: Checkpointer, name: str) -> None:
        """Keep the average under ``name``, and the trained weights beside it, in the checkpoints to come."""
        checkpointer.recoverables[name] = self.average
        checkpointer.add_recoverable(f"trained_{name}", self.network)

    @torch.no_grad()
    def after_step(self, steps_done: int) -> None:
        """Take in the weights after the optimiser's step number ``steps_done``, from 1 on."""
        decay = min(self.decay, steps_done / (steps_done + 9))
        newest = self.network.state_dict()
        for name, averaged in self.average.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(newest[name], 1 - decay)
            else:
                averaged.copy_(newest[name])  # BatchNorm's number of batches
