"""Time and frequency masking of training features, by SpeechBrain's modules, with a randomness that can be repeated."""

from collections.abc import Callable, Sequence

import torch

from voice_biometrics.seeding import generator_for

Mask = Callable[[torch.Tensor], torch.Tensor]


def masked(features: torch.Tensor, masks: Sequence[Mask], seed: str) -> torch.Tensor:
    """Return ``features`` (utterances, frames, features) after all ``masks``, such as SpeechBrain's SpectrogramDrop.

    These draw from PyTorch's own generator, which no checkpoint restores within an epoch. So it follows from ``seed``
    here, and is left as it was found.
    """
    if not masks:
        return features
    devices = [features.device] if features.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(generator_for(f"masks/{seed}").integers(2**63)))
        for mask in masks:
            features = mask(features)
    return features
