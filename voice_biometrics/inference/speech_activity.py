"""Find the speech in a recording with Silero VAD 6.2.3 (MIT licence, ``silero_vad.LICENSE``), as an ONNX file.

``silero_vad.onnx`` is ``silero_vad_16k_sequence.onnx`` of the PyPI package ``silero-vad``, which itself needs PyTorch.
It reads frames of 32 ms, each with the last 4 ms of the frame before. How often it misses speech and takes other sounds
for speech: ``benchmarks/speech_activity.py``.
"""

import functools
from pathlib import Path

import numpy as np
import onnxruntime

from voice_biometrics.common.audio import resample
from voice_biometrics.inference.embedder import load_session

SAMPLE_RATE = 16_000
FRAME, CONTEXT = 512, 64  # samples
FRAMES_AT_ONCE = 512
IS_SPEECH = 0.5  # probability of a frame
LEVEL = 0.1  # RMS of loud frames; quieter speech is missed more often


def speech_duration_s(samples: np.ndarray, sample_rate: int, loud_rms: float) -> float:
    """Return the duration of the frames that hold speech, seconds.

    ``samples`` (samples,) at ``sample_rate`` Hz, whose loud frames have the RMS ``loud_rms``.
    """
    samples = resample(samples, sample_rate, SAMPLE_RATE) * np.float32(LEVEL / max(loud_rms, 1e-9))
    padded = np.pad(samples, (CONTEXT, -samples.size % FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    num_speech = 0
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        block = np.ascontiguousarray(frames[start : start + FRAMES_AT_ONCE], np.float32)
        speech, hidden, cell = _session().run(["speech_probs", "hn", "cn"], {"input": block, "h": hidden, "c": cell})
        num_speech += np.count_nonzero(speech > IS_SPEECH)
    return min(num_speech * FRAME, samples.size) / SAMPLE_RATE


@functools.cache
def _session() -> onnxruntime.InferenceSession:
    path = Path(__file__).with_name("silero_vad.onnx")
    return load_session(path.read_bytes(), str(path))
