"""ECAPA-TDNN behind two-dimensional convolutions, which find the same pattern at any height of the spectrum.

A TDNN learns each pattern once per frequency. Convolutions over time and frequency share their weights between
frequencies, so they make more of few parameters, and a voice at another pitch looks alike to them. Here they correct
the log-mel energies: their result, as many numbers per frame as there are mels, is added to these.

Source: Thienpondt, Desplanques and Demuynck, "Integrating frequency translational invariance in TDNNs and frequency
positional information in 2D ResNets to enhance speaker verification", Interspeech 2021, arXiv 2104.02370, section 2.
There the convolutions replace the features; here they are added, so that a trained ECAPA-TDNN can be their start.
"""

from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn

from voice_biometrics.models.fast_ecapa import FastECAPA


class CnnECAPA(FastECAPA):
    """ECAPA-TDNN of MFCC whose log-mel energies are corrected by convolutions over time and frequency.

    Arguments
    ---------
    input_size : number of MFCC, which must be that of the mels: the cosine transform is undone for the convolutions.
    stem_channels : of the convolutions; each number halves the frequencies once.
    options : of ``ECAPA_TDNN``.

    The correction is 0 before training: the network may start with the weights of an ECAPA-TDNN, see ``transfer``.
    """

    added_part = "stem."

    def __init__(self, input_size: int, *args, stem_channels: Sequence[int] = (16, 32, 64), **options) -> None:
        super().__init__(input_size, *args, **options)
        self.stem = MelStem(input_size, stem_channels)
        dct = torchaudio.functional.create_dct(input_size, input_size, norm="ortho")  # (mels, coefficients)
        self.register_buffer("dct", dct, persistent=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn MFCC (utterances, frames, features) of relative ``lengths`` into (utterances, 1, dims)."""
        log_mels = x @ self.dct.to(x.dtype).T
        return super().forward(x + self.stem(log_mels) @ self.dct, lengths)


class MelStem(nn.Module):
    """Convolutions over time and frequency: (utterances, frames, mels) in and out.

    For each number of ``channels`` a convolution that halves the frequencies and a residual block; then a linear map
    from all channels and frequencies of a frame, which is 0 before training.
    """

    def __init__(self, num_mels: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, inputs = num_mels, 1
        for outputs in channels:
            layers += [halving(inputs, outputs), Residual(outputs)]
            height, inputs = (height + 1) // 2, outputs
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.to_mels = nn.Linear(inputs * height, num_mels, bias=False)
        nn.init.zeros_(self.to_mels.weight)

    def forward(self, log_mels: Tensor) -> Tensor:
        """Return the correction of ``log_mels`` (utterances, frames, mels)."""
        images = log_mels.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        images = self.layers(images)  # (utterances, channels, frames, frequencies)
        return self.to_mels(images.transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """Two convolutions and what they are added to: (utterances, channels, frames, frequencies) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = normalised(channels, channels), normalised(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``images`` after the block."""
        return torch.relu_(images + self.second(torch.relu_(self.first(images))))


def normalised(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution over 3 frames and 3 frequencies, of which it keeps each ``stride``-th, and its BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=(1, stride), padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def halving(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution that halves the frequencies, BatchNorm and ReLU."""
    return nn.Sequential(*normalised(inputs, outputs, stride=2), nn.ReLU(inplace=True))
