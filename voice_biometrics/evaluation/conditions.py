"""Evaluation conditions: alterations of utterances (channel, noise, telephone, short), seeded by the utterance ID.

Where each speaker was recorded in one session on one device, level and channel identify the speaker, and the EER is too
low. Passing every file through a different random channel removes this.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.signal import fftconvolve

from voice_biometrics.augmentation.effects import (
    EQUALISER_HZ,
    add_noise,
    coloured_noise,
    convolve,
    equaliser_response,
    generator_for,
    room_response,
    scale_to_peak,
    telephone_line,
)
from voice_biometrics.common.errors import InputError

CHANNEL_PEAK = (0.02, 0.9)
CHANNEL_EQUALISER_DB = (-9.0, 9.0)  # at each band
CHANNEL_DECAY_S = (0.08, 0.4)
CHANNEL_ROOM_DB = (3.0, 15.0)  # the room's energy below the direct sound's
CHANNEL_SNR_DB = (12.0, 30.0)
NOISE_SLOPE = (0.0, 2.0)  # white to brown

Alteration = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # samples, Hz, generator -> samples


@dataclass(frozen=True)
class Condition:
    """An alteration of utterances, the same for an utterance each time and different between utterances."""

    name: str  # for tables: "noise, 10 dB SNR"
    alter: Alteration
    longest_s: float = math.inf  # no utterance is longer under it, seconds

    def __call__(self, samples: np.ndarray, sample_rate: int, utt_id: str) -> np.ndarray:
        """Return the altered utterance, float32 (samples',): ``samples`` (samples,) at ``sample_rate`` Hz."""
        return self.alter(samples, sample_rate, generator_for(f"{self.name}/{utt_id}"))


def untouched(samples: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples``."""
    return samples


CLEAN = Condition("clean", untouched)


def conditions_named(text: str) -> list[Condition]:
    """Return the conditions that ``channel``, ``noise``, ``telephone`` or ``short`` names, in the order of tables.

    ``noise`` is one condition per SNR (20, 10, 5, 0 dB) and ``short`` one per length (1, 2, 3 s), or per stated value:
    ``noise:15,3``, ``short:1.5``. Raises InputError for an unknown name and for values malformed or out of range.
    """
    kind, colon, values = text.partition(":")
    if kind in SINGLE and not colon:
        return [Condition(kind, SINGLE[kind])]
    if kind not in GRADED:
        raise InputError(f"condition {text!r}: expected {CHOICES}")
    graded = GRADED[kind]
    stated = _values(text, values, graded) if colon else graded.usual
    return [graded.condition(kind, value) for value in stated]


def channel(samples: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples`` through a random microphone, room, noise and level."""
    microphone = equaliser_response(sample_rate, rng.uniform(*CHANNEL_EQUALISER_DB, len(EQUALISER_HZ)))
    decay_s, room_db = rng.uniform(*CHANNEL_DECAY_S), rng.uniform(*CHANNEL_ROOM_DB)
    room = room_response(sample_rate, rng, decay_s, room_db)
    heard = convolve(samples, fftconvolve(microphone, room), microphone.size // 2)
    heard = noisy(rng.uniform(*CHANNEL_SNR_DB), heard, sample_rate, rng)
    return scale_to_peak(heard, rng.uniform(*CHANNEL_PEAK))


def noisy(snr_db: float, samples: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples`` with noise of random colour at ``snr_db``."""
    noise = coloured_noise(samples.size, sample_rate, rng, rng.uniform(*NOISE_SLOPE))
    return add_noise(samples, noise, snr_db)


def telephone(samples: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples`` through a telephone line, the same for all utterances."""
    return telephone_line(samples, sample_rate)


def short(duration_s: float, samples: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random crop of ``duration_s`` seconds, or the whole of a shorter utterance."""
    num_samples = round(duration_s * sample_rate)
    start = rng.integers(max(0, samples.size - num_samples) + 1)
    return samples[start : start + num_samples]


@dataclass(frozen=True)
class _Graded:
    """A condition with several strengths."""

    alter: Callable[..., np.ndarray]
    usual: tuple[float, ...]
    unit: str
    lowest: float
    highest: float
    cuts: bool = False  # its values are lengths, seconds

    def condition(self, kind: str, value: float) -> Condition:
        """Return the condition at one value."""
        longest_s = value if self.cuts else math.inf
        return Condition(f"{kind}, {value:g} {self.unit}", partial(self.alter, value), longest_s)


SINGLE = {"channel": channel, "telephone": telephone}
GRADED = {
    "noise": _Graded(noisy, (20, 10, 5, 0), "dB SNR", -40, 100),
    "short": _Graded(short, (1, 2, 3), "s", 0.1, 3600, cuts=True),
}
CHOICES = "channel, noise, telephone or short; noise:15,3 and short:1.5 state the values"


def _values(text: str, values: str, graded: _Graded) -> list[float]:
    """Return the numbers of ``15,3``, each once."""
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(graded.lowest <= number <= graded.highest for number in numbers):
        raise InputError(
            f"condition {text!r}: expected numbers from {graded.lowest:g} to {graded.highest:g} {graded.unit}, "
            f"separated by commas; the conditions are {CHOICES}"
        )
    return list(dict.fromkeys(numbers))
