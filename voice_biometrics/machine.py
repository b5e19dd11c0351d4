"""Make the best of the machine at hand: its precision and its memory."""

import ctypes
import sys

import torch

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
