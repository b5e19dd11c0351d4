"""A front end that SpeechBrain does not have: the original project's MFCC.

torchaudio's MFCC differs from SpeechBrain's in its window (Hann, reflected edges), hop (12.5 ms) and mel scale, so
weights trained on one do not suit the other.
"""

import warnings

import torch
import torchaudio
from speechbrain.utils.autocast import fwd_default_precision
from torch import Tensor, nn

# torchaudio's default n_fft of 400 is too coarse for its default of 128 mels: four filters stay empty. It is the
# original's setting and is kept, so its warning would only worry the user. Other mel settings still warn.
DEFAULT_EMPTY_MELS_WARNING = (
    r"At least one mel filterbank has all zero values\. The value for `n_mels` \(128\).*`n_freqs` \(201\)"
)


class TorchaudioMFCC(nn.Module):
    """MFCC of ``torchaudio.transforms.MFCC``, called like SpeechBrain's features.

    Every utterance is computed alone: torchaudio clips 80 dB below the loudest value, and given a plain (batch,
    samples) it would seek that value over the whole batch, so that a loud neighbour changed the features of a quiet
    utterance.

    Arguments
    ---------
    n_mfcc: coefficients per frame.
    sample_rate: Hz.
    melkwargs: options of ``torchaudio.transforms.MelSpectrogram``; None for its defaults (n_fft and window of 400
        samples, hop of 200 samples, 128 mels).

    Raises
    ------
    ValueError: ``n_mfcc`` is more than the number of mels.

    Source: https://docs.pytorch.org/audio/stable/generated/torchaudio.transforms.MFCC.html
    """

    def __init__(self, n_mfcc: int = 80, sample_rate: int = 16000, melkwargs: dict | None = None) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=DEFAULT_EMPTY_MELS_WARNING, category=UserWarning)
            self.mfcc = torchaudio.transforms.MFCC(sample_rate=sample_rate, n_mfcc=n_mfcc, melkwargs=melkwargs)

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wavs: Tensor) -> Tensor:
        """Turn waveforms (batch, samples) into (batch, 1 + samples // hop, n_mfcc), in fp32 even under autocast.

        Raises ValueError for another shape, or too few samples to reflect at the edges.
        """
        min_samples = self.mfcc.MelSpectrogram.n_fft // 2 + 1
        if wavs.dim() != 2 or wavs.shape[1] < min_samples:
            raise ValueError(f"waveforms: expected (batch, {min_samples} samples or more), found {tuple(wavs.shape)}")
        feats = self.mfcc(wavs.unsqueeze(1))  # (batch, 1, n_mfcc, frames)
        return feats.squeeze(1).transpose(1, 2)  # (batch, frames, n_mfcc)
