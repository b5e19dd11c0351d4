"""ONNX graph from waveforms to normalised features, equal to those of SpeechBrain, torchaudio and Kaldi.

ONNX Runtime's STFT takes longer than the whole network. Here each frame is multiplied by one matrix that joins all
steps before the power spectrum, which are linear: window, Fourier transform, and Kaldi's offset and pre-emphasis. Mel
and cosine matrices are the libraries' own.
"""

import math
from dataclasses import dataclass

import torch
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain.processing.features import InputNormalization
from torch import Tensor, nn

from voice_biometrics.common.errors import InputError
from voice_biometrics.export.onnx_ecapa import OnnxGraph
from voice_biometrics.models.features import TorchaudioMFCC
from voice_biometrics.models.kaldi_mfcc import SAMPLE_SCALE, SMALLEST_ENERGY, KaldiMFCC

_KALDI_STEP = 160  # samples between Kaldi's frames at 16 kHz
_ENGINE_SHAPE = (400, 80)  # samples of a frame at 16 kHz and mels, in engines that compute the features themselves


@dataclass(frozen=True)
class FrontEnd:
    """Definition of the features: log mel energies, optionally with a cosine transform (MFCC).

    spectrum : (samples of a frame, 2 * bins), from a frame to real and imaginary parts in turn.
    hop : samples. padding : of the waveform, "constant" (zeros), "reflect" or "kaldi".
    mels : (2 * bins, mels), each bin twice. floor : minimum mel energy.
    decibels : factor of the natural logarithm. top_db : limit below the loudest value, or None.
    cosines : (mels, coefficients), or None.
    centred : subtract each utterance's mean over time.
    least_deviation : then divide by the standard deviation over time, which is at least this; None: do not divide.
    unused_mels : the lowest, which are copies of the next one (``KaldiLogMel``).
    """

    spectrum: Tensor
    hop: int
    padding: str
    mels: Tensor
    floor: float
    decibels: float
    top_db: float | None
    cosines: Tensor | None
    centred: bool
    least_deviation: float | None
    unused_mels: int = 0


def read_front_end(compute_features: nn.Module, mean_var_norm: nn.Module) -> FrontEnd:
    """Return the definition of the features of two modules of a run.

    Raises InputError for features other than MFCC and Fbank without deltas and context, TorchaudioMFCC and KaldiMFCC,
    and for a normalisation other than per utterance (``norm_type: sentence``) or none.
    """
    if isinstance(mean_var_norm, InputNormalization) and mean_var_norm.norm_type == "sentence":
        normalisation = {"centred": True, "least_deviation": mean_var_norm.epsilon if mean_var_norm.std_norm else None}
    elif isinstance(mean_var_norm, LengthsCapableSequential) and not mean_var_norm:  # an empty one: no normalisation
        normalisation = {"centred": False, "least_deviation": None}
    else:
        raise InputError(
            f"mean_var_norm: the export supports norm_type sentence only, found {type(mean_var_norm).__name__}"
        )
    if isinstance(compute_features, TorchaudioMFCC):
        return FrontEnd(**_of_torchaudio(compute_features), **normalisation)
    if isinstance(compute_features, KaldiMFCC):
        return FrontEnd(**_of_kaldi(compute_features), **normalisation)
    if isinstance(compute_features, MFCC | Fbank):
        return FrontEnd(**_of_speechbrain(compute_features), **normalisation)
    raise InputError(f"compute_features: the export does not support {type(compute_features).__name__}")


def _of_speechbrain(features: MFCC | Fbank) -> dict:
    if features.deltas or features.context:
        raise InputError("compute_features: the export supports neither deltas nor context; train with both False")
    stft, bank = features.compute_STFT, features.compute_fbanks
    axes = [axis.repeat(bank.n_stft, 1).t() for axis in (bank.f_central, bank.band)]  # (mels, bins) each
    return dict(
        spectrum=_windowed_fourier(stft.window, stft.n_fft),
        hop=stft.hop_length,
        padding="constant",
        mels=bank._create_fbank_matrix(*axes).repeat_interleave(2, dim=0),
        floor=bank.amin,
        decibels=bank.multiplier / math.log(10),
        top_db=bank.top_db,
        cosines=features.compute_dct.dct_mat if isinstance(features, MFCC) else None,
    )


def _of_torchaudio(features: TorchaudioMFCC) -> dict:
    mfcc = features.mfcc
    spectrogram, decibels = mfcc.MelSpectrogram.spectrogram, mfcc.amplitude_to_DB
    return dict(
        spectrum=_windowed_fourier(spectrogram.window, spectrogram.n_fft),
        hop=spectrogram.hop_length,
        padding="reflect",
        mels=mfcc.MelSpectrogram.mel_scale.fb.repeat_interleave(2, dim=0),
        floor=decibels.amin,
        decibels=decibels.multiplier / math.log(10),
        top_db=decibels.top_db,
        cosines=mfcc.dct_mat,
    )


def _of_kaldi(features: KaldiMFCC) -> dict:
    log_mel = features.log_mel
    return dict(
        spectrum=log_mel.spectrum_matrix() * SAMPLE_SCALE,
        hop=log_mel.kaldi_hop_samples * log_mel.keep_every,
        padding="kaldi",
        mels=log_mel.filters,
        floor=SMALLEST_ENERGY,
        decibels=10 / math.log(10),
        top_db=None if log_mel.top_db is None else float(log_mel.top_db),
        cosines=features.dct * (math.log(10) / 10),  # of natural logarithms
        unused_mels=log_mel.unused_mels,
    )


def add_front_end(graph: OnnxGraph, front_end: FrontEnd, waves: str) -> tuple[str, Tensor | None]:
    """Add the front end: ``waves`` (batch, samples) to normalised features (batch, frames, features).

    Returns the name of the features and, unless they are divided by a deviation, the cosine transform (features,
    coefficients), which is left to the first layer of the network: it commutes with the subtraction of the mean.
    """
    graph.place = "front_end/"
    padded, num_frames = (_padded_by_kaldi if front_end.padding == "kaldi" else _padded)(graph, front_end, waves)
    frames = _frames(graph, padded, front_end.spectrum.shape[0], front_end.hop, num_frames)
    spectrum = graph.op("MatMul", frames, front_end.spectrum)
    energies = graph.op("MatMul", graph.op("Mul", spectrum, spectrum), front_end.mels)  # (batch, frames, mels)
    log_mels = graph.op("Log", graph.op("Max", energies, front_end.floor))
    return _normalised(graph, front_end, log_mels)


def add_computed_front_end(graph: OnnxGraph, front_end: FrontEnd, log_mels: str) -> tuple[str, Tensor | None]:
    """Add what follows Kaldi's log-mel energies: ``log_mels`` (batch, frames, 80), natural logarithms every 10 ms.

    Returns as ``add_front_end``. Raises InputError when the features are not based on these.
    """
    if front_end.padding != "kaldi" or (front_end.spectrum.shape[0], front_end.mels.shape[1]) != _ENGINE_SHAPE:
        raise InputError("compute_features: expected KaldiMFCC with 80 mels at 16,000 Hz, as the engines compute them")
    graph.place = "front_end/"
    every = front_end.hop // _KALDI_STEP
    log_mels = graph.op("Slice", log_mels, [0], [2**31], [1], [every])
    if unused := front_end.unused_mels:
        used = [*[unused] * unused, *range(unused, front_end.mels.shape[1])]
        log_mels = graph.op("Gather", log_mels, used, axis=2)
    return _normalised(graph, front_end, log_mels)


def _normalised(graph: OnnxGraph, front_end: FrontEnd, log_mels: str) -> tuple[str, Tensor | None]:
    """Add all steps after the natural logarithm; returns as ``add_front_end``."""
    features, cosines = graph.op("Mul", log_mels, front_end.decibels), front_end.cosines
    if front_end.top_db is not None:
        loudest = graph.op("ReduceMax", features, [1, 2], keepdims=1)
        features = graph.op("Max", features, graph.op("Sub", loudest, front_end.top_db))
    if front_end.least_deviation is not None and cosines is not None:
        features, cosines = graph.op("MatMul", features, cosines), None
    if front_end.centred:
        features = graph.op("Sub", features, graph.op("ReduceMean", features, [1], keepdims=1))
    if front_end.least_deviation is not None:
        deviation = graph.op("Sqrt", graph.op("ReduceMean", graph.op("Mul", features, features), [1], keepdims=1))
        features = graph.op("Div", features, graph.op("Max", deviation, front_end.least_deviation))
    return features, cosines


def _padded(graph: OnnxGraph, front_end: FrontEnd, waves: str) -> tuple[str, str]:
    """Pad (batch, samples) for frames centred on every ``hop`` samples; returns it and the number of frames."""
    n_fft = front_end.spectrum.shape[0]
    padded = graph.op("Pad", waves, [0, n_fft // 2, 0, n_fft // 2], mode=front_end.padding)
    spare = graph.op("Sub", graph.op("Shape", padded, start=1, end=2), [n_fft])  # from the first to the last frame
    return padded, graph.op("Add", graph.op("Div", spare, [front_end.hop]), [1])


def _padded_by_kaldi(graph: OnnxGraph, front_end: FrontEnd, waves: str) -> tuple[str, str]:
    """Pad (batch, samples) by reflection, as Kaldi does; returns it and the number of frames."""
    window, hop, step = front_end.spectrum.shape[0], front_end.hop, _KALDI_STEP
    left, right = (window - step) // 2, window // 2  # at most this many samples are missing at the ends
    num_samples = graph.op("Shape", waves, start=1, end=2)
    kaldi_frames = graph.op("Div", graph.op("Add", num_samples, [step // 2]), [step])
    num_frames = graph.op("Div", graph.op("Add", kaldi_frames, [hop // step - 1]), [hop // step])
    begin = graph.op("Slice", waves, [left - 1], [-(2**31)], [1], [-1])  # backwards: the sample at the edge is repeated
    end = graph.op("Slice", waves, [-1], [-1 - right], [1], [-1])
    return graph.op("Concat", begin, waves, end, axis=1), num_frames


def _frames(graph: OnnxGraph, waves: str, length: int, hop: int, num_frames: str) -> str:
    """Cut overlapping frames from the first sample on: (batch, samples) -> (batch, frames, length).

    Frames are gathered from blocks whose length divides both hop and frame; the last block is completed with zeros.
    """
    block = math.gcd(length, hop)
    padded = graph.op("Pad", waves, [0, 0, 0, block - 1])
    num_blocks = graph.op("Div", graph.op("Shape", padded, start=1, end=2), [block])
    whole = graph.op("Slice", padded, [0], graph.op("Mul", num_blocks, [block]), [1])
    blocks = graph.op("Reshape", whole, [0, -1, block])  # (batch, blocks, samples)
    starts = graph.op("Mul", graph.op("Range", 0, graph.op("Squeeze", num_frames, [0]), 1), [hop // block])
    of_frame = list(range(length // block))
    which = graph.op("Add", graph.op("Unsqueeze", starts, [1]), of_frame)  # (frames, blocks per frame)
    gathered = graph.op("Gather", blocks, graph.op("Reshape", which, [-1]), axis=1)
    return graph.op("Reshape", gathered, [0, -1, length])


def _windowed_fourier(window: Tensor, n_fft: int) -> Tensor:
    """Return the matrix (n_fft, 2 * bins) of a frame's window, centred in ``n_fft`` samples, and Fourier transform."""
    missing = n_fft - window.numel()
    window = nn.functional.pad(window.double(), (missing // 2, missing - missing // 2))
    return torch.view_as_real(torch.fft.rfft(window.diag())).flatten(1)
