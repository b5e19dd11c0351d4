"""What ``inference.py`` times: whole processes, embedders (options -> (samples -> embedding)), identification."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from voice_biometrics.common.audio import read_audio

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 16000
NOT_INSTALLED = "No module named 'resemblyzer'"
SPEECHBRAIN_COMPARE = """
import sys
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(source=sys.argv[1], savedir=sys.argv[1])
print(model.verify_files(*sys.argv[2:]))
"""
RESEMBLYZER_COMPARE = """
import sys
from resemblyzer import VoiceEncoder, preprocess_wav
model = VoiceEncoder("cpu", verbose=False)
first, second = (model.embed_utterance(preprocess_wav(file)) for file in sys.argv[2:])
print(first @ second)
"""
Embed = Callable[[np.ndarray], np.ndarray]


def onnx(precision: str, options: argparse.Namespace) -> Embed:
    """The model folder, by ONNX Runtime."""
    from voice_biometrics.inference.embedder import Embedder
    from voice_biometrics.inference.model_folder import read_model_folder

    return Embedder(read_model_folder(options.model), precision)


def speechbrain_eager(options: argparse.Namespace) -> Embed:
    """The same model by SpeechBrain's own inference class, PyTorch eager."""
    import torch
    from speechbrain.inference.speaker import SpeakerRecognition

    source = str(options.model / "speechbrain")
    model = SpeakerRecognition.from_hparams(source=source, savedir=source, run_opts={"device": "cpu"})
    torch.set_num_threads(options.threads)
    return lambda samples: model.encode_batch(torch.from_numpy(samples)[None])[0, 0].numpy()


def ecapa_1024(options: argparse.Namespace) -> Embed:
    """The network and features of SpeechBrain's published VoxCeleb model, random weights, PyTorch eager."""
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    torch.set_num_threads(options.threads)
    network = ECAPA_TDNN(80, channels=[1024, 1024, 1024, 1024, 3072], lin_neurons=192).eval()
    front = torch.nn.Sequential(Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False))

    @torch.inference_mode()
    def embed(samples: np.ndarray) -> np.ndarray:
        return network(front(torch.from_numpy(samples)[None]))[0, 0].numpy()

    return embed


def resemblyzer(options: argparse.Namespace) -> Embed:
    """Resemblyzer 0.1.4 with the weights that it ships; its silence removal left out."""
    import torch
    from resemblyzer import VoiceEncoder

    torch.set_num_threads(options.threads)
    return VoiceEncoder("cpu", verbose=False).embed_utterance


EMBEDDERS = {
    "onnx_fp32": partial(onnx, "fp32"),
    "onnx_int8": partial(onnx, "int8"),
    "speechbrain_eager": speechbrain_eager,
    "ecapa_1024": ecapa_1024,
    "resemblyzer": resemblyzer,
}


@contextlib.contextmanager
def two_files(options: argparse.Namespace) -> Iterator[list[str]]:
    """Give two WAV files of 4 s while it lasts."""
    with tempfile.TemporaryDirectory() as folder:
        halves = np.split(speech_of(options, 8.0), 2)
        files = [str(Path(folder) / f"{number}.wav") for number in range(2)]
        for file, samples in zip(files, halves, strict=True):
            soundfile.write(file, samples, SAMPLE_RATE)
        yield files


def cold_commands(options: argparse.Namespace, files: list[str]) -> list[tuple[str, list[str]]]:
    """Return name and command of each system that compares two files in a new process."""
    verify = [sys.executable, str(ROOT / "verify.py"), "compare", *files, "--model", str(options.model)]
    layout = str(options.model / "speechbrain")
    return [
        ("onnx_fp32", verify),
        ("onnx_int8", [*verify, "--precision", "int8"]),
        ("speechbrain_eager", [sys.executable, "-c", SPEECHBRAIN_COMPARE, layout, *files]),
        ("resemblyzer", [sys.executable, "-c", RESEMBLYZER_COMPARE, layout, *files]),
    ]


def time_process(command: list[str], repeats: int) -> dict[str, float] | None:
    """Run a command again and again; wall time of the fastest and the median, s, and the most memory, MB.

    The first run warms the disk cache and does not count. None where the system is not installed.
    """
    times_s, peaks = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(command, stdout=told, stderr=told)
            _, status, used = os.wait4(process.pid, 0)
            times_s.append(time.perf_counter() - start)
            peaks.append(used.ru_maxrss / 1000)  # from kB
            process.returncode = os.waitstatus_to_exitcode(status)
            told.seek(0)
            words = told.read().decode()
        if NOT_INSTALLED in words:
            return None
        if process.returncode not in (0, 1):  # 1: verify.py rejected
            sys.exit(f"{command} failed:\n{words}")
    return _summary(times_s[1:]) | {"peak_mb": max(peaks)}


def time_utterance(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Embed the same 3 s again and again; fastest and median time of a call, seconds."""
    embed, samples = EMBEDDERS[name](options), speech_of(options, 3.0)
    for _ in range(3):
        embed(samples)
    times_s, end = [], time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        embed(samples)
        times_s.append(time.perf_counter() - start)
    return _summary(times_s)


def time_identification(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Find the best three of many random voices; ``identification.py`` says more."""
    from identification import COUNT, DIMS, FINGERPRINT, REPEATS, Gallery, Store, voices

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "voices.db", create=True)
        store.add_all(voices(options.voices, seed=0))
        gallery = Gallery(store, FINGERPRINT, DIMS)
    probe, times_s = gallery.rows[len(gallery.rows) // 2].copy(), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        gallery.best(probe, COUNT)
        times_s.append(time.perf_counter() - start)
    return _summary(times_s)


def _summary(times_s: list[float]) -> dict[str, float]:
    return {"fastest_s": min(times_s), "median_s": float(np.median(times_s))}


def time_folder(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Decode and embed files, ``--repeats`` times. Ours side by side, others one by one with all threads for each."""
    embed, files = EMBEDDERS[name](options), files_of(options)[: options.files]
    embed(speech_of(options, 3.0))
    readers = [partial(read_audio, file, SAMPLE_RATE) for file in files]
    times_s = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        if hasattr(embed, "embed_many"):
            embed.embed_many(readers, num_threads=options.threads)
        else:
            for read in readers:
                embed(read())
        times_s.append(time.perf_counter() - start)
    return _summary(times_s) | {"files": len(files)}


def files_of(options: argparse.Namespace) -> list[Path]:
    """Return the audio files of the folder, sorted."""
    found = sorted(path for path in options.audio.rglob("*") if path.suffix.lower() in {".wav", ".flac", ".ogg"})
    if not found:
        sys.exit(f"{options.audio}: no WAV, FLAC or OGG files; name a folder that has some: --audio")
    return found


def speech_of(options: argparse.Namespace, duration_s: float) -> np.ndarray:
    """Return so many seconds of the folder's first files, float32 (samples,)."""
    num_samples, parts = round(duration_s * SAMPLE_RATE), []
    for file in files_of(options):
        parts.append(read_audio(file, SAMPLE_RATE))
        if sum(part.size for part in parts) >= num_samples:
            break
    return np.resize(np.concatenate(parts), num_samples)


JOBS = {"utterance": time_utterance, "folder": time_folder, "identification": time_identification}
