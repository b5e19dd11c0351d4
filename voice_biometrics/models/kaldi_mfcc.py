"""Kaldi's log-mel energies and MFCC in PyTorch: batched, differentiable and free of dither.

The log-mel energies are those of ``kaldi-native-fbank``, which sherpa-onnx and WeSpeaker run on the device. The cosine
transform is linear, so a network trained on these MFCC runs there once the transform is folded into the exported graph.

Source: Kaldi, ``src/feat/feature-window.cc`` and ``src/feat/mel-computations.cc``.
"""

import math

import torch
import torchaudio
from speechbrain.utils.autocast import fwd_default_precision
from torch import Tensor, nn

SAMPLE_SCALE = 32768.0  # Kaldi's waveforms are 16-bit integers; in sherpa-onnx: normalize_samples=0
PRE_EMPHASIS = 0.97
POVEY_POWER = 0.85  # of a Hann window
LOW_HZ, HIGH_HZ = 20.0, 7600.0
WINDOW_MS, KALDI_HOP_MS = 25, 10
SMALLEST_ENERGY = torch.finfo(torch.float32).eps
NEPERS_PER_DB = math.log(10) / 10


class KaldiLogMel(nn.Module):
    """Log-mel energies equal to those of ``kaldi-native-fbank`` with ``snip_edges=false`` and no dither.

    Each frame has its mean (DC offset) removed, then pre-emphasis, a Povey window and the power spectrum. Frames beyond
    the ends of the waveform are completed by reflection.

    Arguments
    ---------
    n_mels: number of triangular mel filters between 20 Hz and 7,600 Hz.
    sample_rate: of the waveforms, Hz.
    hop_length: step between frames, ms; a multiple of Kaldi's 10 ms, whose frames are subsampled.
    top_db: energies further below the loudest of the utterance are raised to that level, dB; None keeps Kaldi's values.
        Digital silence would otherwise be far below any real recording.
    unused_mels: the lowest filters, each of which is replaced by a copy of the next one that is used. The two lowest
        of 80 lie below 90 Hz, where rumble and mains hum change the log-mels more than the speaker does.

    Raises
    ------
    ValueError: ``hop_length`` is not a multiple of 10 ms, or the sample rate is too low for the filters.
    """

    def __init__(
        self,
        n_mels: int = 80,
        sample_rate: int = 16000,
        hop_length: int = 10,
        top_db: float | None = None,
        unused_mels: int = 0,
    ) -> None:
        super().__init__()
        if hop_length <= 0 or hop_length % KALDI_HOP_MS:
            raise ValueError(f"hop_length: expected a multiple of {KALDI_HOP_MS} ms, found {hop_length}")
        if sample_rate < 2 * HIGH_HZ:
            raise ValueError(f"sample_rate: expected at least {2 * HIGH_HZ:.0f} Hz, found {sample_rate}")
        self.top_db, self.unused_mels = top_db, unused_mels
        self.window_samples = sample_rate * WINDOW_MS // 1000
        self.kaldi_hop_samples = sample_rate * KALDI_HOP_MS // 1000
        self.keep_every = hop_length // KALDI_HOP_MS
        self.fft_samples = 1 << (self.window_samples - 1).bit_length()
        hann = torch.hann_window(self.window_samples, periodic=False, dtype=torch.float64)
        self.register_buffer("window", hann.pow(POVEY_POWER).float(), persistent=False)
        filters = mel_filters(n_mels, self.fft_samples, sample_rate)  # (bins, n_mels)
        filters[:, :unused_mels] = filters[:, unused_mels : unused_mels + 1]
        filters = filters.repeat_interleave(2, dim=0)  # once for the real and once for the imaginary part of a bin
        self.register_buffer("filters", filters, persistent=False)  # (2 * bins, n_mels)

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wavs: Tensor) -> Tensor:
        """Turn waveforms (batch, samples) in [-1, 1] into natural logarithms (batch, frames, n_mels).

        They are computed in fp32 even under autocast; with a hop of 10 ms there are ``round(samples / hop)`` frames.
        Raises ValueError for another shape, or fewer samples than one window.
        """
        if wavs.dim() != 2 or wavs.shape[1] < self.window_samples:
            raise ValueError(
                f"waveforms: expected (batch, {self.window_samples} samples or more), found {tuple(wavs.shape)}"
            )
        frames = self._frames(wavs * SAMPLE_SCALE)  # (batch, frames, window)
        frames = frames - frames.mean(dim=2, keepdim=True)
        first = (1 - PRE_EMPHASIS) * frames[..., :1]  # the sample before it counts as equal
        frames = torch.cat([first, torch.sub(frames[..., 1:], frames[..., :-1], alpha=PRE_EMPHASIS)], dim=2)
        frames = nn.functional.pad(frames * self.window, (0, self.fft_samples - self.window_samples))
        spectrum = torch.view_as_real(torch.fft.rfft(frames)).flatten(2)  # (batch, frames, 2 * bins)
        energies = spectrum.square() @ self.filters  # (batch, frames, n_mels)
        log_mels = energies.clamp(min=SMALLEST_ENERGY).log()
        if self.top_db is not None:
            loudest = log_mels.amax(dim=(1, 2), keepdim=True)
            log_mels = log_mels.maximum(loudest - self.top_db * NEPERS_PER_DB)
        return log_mels

    def spectrum_matrix(self) -> Tensor:
        """Return the matrix (window, 2 * bins) from a frame of samples to real and imaginary parts in turn.

        It joins the steps before the power spectrum: offset, pre-emphasis, window, Fourier transform.
        """
        frame = torch.eye(self.window_samples, dtype=torch.float64)
        frame = frame - frame.mean(dim=1, keepdim=True)
        shifted = torch.cat([frame[:, :1], frame[:, :-1]], dim=1)
        frame = (frame - PRE_EMPHASIS * shifted) * self.window
        return torch.view_as_real(torch.fft.rfft(frame, self.fft_samples)).flatten(1).float()

    def _frames(self, wavs: Tensor) -> Tensor:
        """Cut waveforms (batch, samples) into overlapping frames (batch, frames, window)."""
        hop, window, num_samples = self.kaldi_hop_samples, self.window_samples, wavs.shape[1]
        num_frames = (num_samples + hop // 2) // hop
        left = (window - hop) // 2  # samples of the first frame before the waveform
        right = max(0, (num_frames - 1) * hop - left + window - num_samples)
        parts = [wavs[:, :left].flip(1), wavs, wavs[:, num_samples - right :].flip(1)]
        return torch.cat(parts, dim=1).unfold(1, window, hop * self.keep_every)


class KaldiMFCC(nn.Module):
    """MFCC of Kaldi's log-mel energies: an orthonormal cosine transform, no lifter.

    Called like SpeechBrain's ``MFCC``, with the ``options`` of ``KaldiLogMel``. Raises ValueError as that does, or if
    ``n_mfcc`` is more than ``n_mels``.
    """

    def __init__(self, n_mfcc: int = 80, n_mels: int = 80, **options) -> None:
        super().__init__()
        if n_mfcc > n_mels:
            raise ValueError(f"n_mfcc: expected at most the {n_mels} mels, found {n_mfcc}")
        self.log_mel = KaldiLogMel(n_mels, **options)
        self.register_buffer("dct", torchaudio.functional.create_dct(n_mfcc, n_mels, norm="ortho"), persistent=False)

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wavs: Tensor) -> Tensor:
        """Turn waveforms (batch, samples) in [-1, 1] into MFCC (batch, frames, n_mfcc)."""
        return self.log_mel(wavs) @ self.dct


def mel_filters(n_mels: int, fft_samples: int, sample_rate: int) -> Tensor:
    """Return Kaldi's mel filters (fft_samples // 2 + 1, n_mels): triangles on the mel scale, not normalised."""
    low, high = (mel_of(torch.tensor(hz, dtype=torch.float64)) for hz in (LOW_HZ, HIGH_HZ))
    edges = low + (high - low) / (n_mels + 1) * torch.arange(n_mels + 2, dtype=torch.float64)
    bins_hz = torch.arange(fft_samples // 2, dtype=torch.float64) * sample_rate / fft_samples
    mels = mel_of(bins_hz).unsqueeze(1)  # (bins, 1)
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return nn.functional.pad(triangles, (0, 0, 0, 1)).float()  # Kaldi leaves out the bin at the Nyquist frequency


def mel_of(frequency_hz: Tensor) -> Tensor:
    """Return Kaldi's mels of frequencies in Hz."""
    return 1127.0 * torch.log1p(frequency_hz / 700.0)
