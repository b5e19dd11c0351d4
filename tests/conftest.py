"""Voices, corpora and settings that the tests share. Audio is synthesised: no corpus is needed."""

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import lfilter
from speechbrain.utils.importutils import LazyModule

from voice_biometrics.augmentation import rooms_and_noises as augmentation_sources

SAMPLE_RATE = 16000
SHARED = Path(__file__).parents[2] / "shared"

VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))

torch.set_num_threads(1)  # the tests' networks are too small to share

# Hypothesis asks every module for its file; SpeechBrain's lazy ones would import k2, which is not here, to answer.
LazyModule.__file__ = None


def make_voice(pitch_hz: float, duration_s: float, seed: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return a voice-like sound, float32 (samples,): harmonics of a gliding pitch under a formant, and some noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    glide = 1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * time_s + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch_hz * glide) / sample_rate
    harmonics = range(1, int(3500 / pitch_hz))
    sound = sum(np.sin(number * phase) / (1 + abs(number * pitch_hz - 5 * pitch_hz) / 500) for number in harmonics)
    sound = sound * (1.2 + np.sin(2 * np.pi * 3 * time_s)) + 0.05 * rng.standard_normal(time_s.size)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def make_speech(pitch_hz: float, duration_s: float, seed: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return vowels of a voice, float32 (samples,), which Silero VAD takes for speech; ``make_voice`` is faster."""
    rng = np.random.default_rng(seed)
    num_samples = round(duration_s * sample_rate)
    glide = 1 + 0.1 * np.sin(2 * np.pi * (rng.uniform(0.5, 1.5) * np.arange(num_samples) / sample_rate + rng.random()))
    pulses = np.diff(np.floor(np.cumsum(pitch_hz * glide) / sample_rate), prepend=0)
    source, sound, start = lfilter([1, -1], [1, -1.975, 0.9751], pulses), np.zeros(num_samples), 0  # no offset
    for number in itertools.count(seed):
        if start >= num_samples:
            break
        stop = start + round(sample_rate * rng.uniform(0.12, 0.2))
        vowel = source[start:stop]
        for formant_hz in np.multiply(VOWELS_HZ[number % len(VOWELS_HZ)], (pitch_hz / 150) ** 0.6):
            radius = np.exp(-np.pi * 80 / sample_rate)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant_hz / sample_rate), radius**2]
            vowel = lfilter([1 - radius], poles, vowel)
        sound[start:stop] = vowel / (np.abs(vowel).max() + 1e-9) * np.hanning(vowel.size) ** 0.5
        start = stop + round(0.03 * sample_rate)
    return (0.3 * sound + 0.003 * rng.standard_normal(num_samples)).astype(np.float32)


def write_speakers(
    folder: Path, num_speakers: int, num_utterances: int, duration_s: float = 1.2, first_speaker: int = 0
) -> Path:
    """Write ``<folder>/spk<i>/utt<j>.wav``, 16 kHz: each speaker has a pitch of his own."""
    for speaker in range(first_speaker, first_speaker + num_speakers):
        place = folder / f"spk{speaker}"
        place.mkdir(parents=True, exist_ok=True)
        for utterance in range(num_utterances):
            sound = make_voice(90 + 40 * speaker, duration_s + 0.1 * (utterance % 3), seed=100 * speaker + utterance)
            soundfile.write(place / f"utt{utterance}.wav", sound, SAMPLE_RATE)
    return folder


def forget_setting(folder: Path, name: str) -> None:
    """Change the record of a preparation to one of a program without the setting ``name``."""
    record = json.loads((folder / "prepared.json").read_text())
    del record["settings"][name]
    (folder / "prepared.json").write_text(json.dumps(record))


@pytest.fixture
def speakers(tmp_path: Path) -> Path:
    """A folder of 6 speakers with 4 utterances each."""
    return write_speakers(tmp_path / "speakers", num_speakers=6, num_utterances=4)


@pytest.fixture
def few_sources(monkeypatch) -> None:
    """Few and short rooms and noises for augmentation: making them all takes seconds."""
    monkeypatch.setattr(augmentation_sources, "NUM_ROOMS", 4)
    monkeypatch.setattr(augmentation_sources, "NOISE_S", 2.0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real corpora; tests that need it are skipped without."""
    if not (SHARED / "corpora").is_dir():
        pytest.skip("needs the real corpora in ../shared, which are not here")
    return SHARED
