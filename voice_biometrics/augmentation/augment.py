"""Augmentation of training crops: rooms, noise, microphones, levels, telephone lines, speeds; masking of features.

Random choices depend on seed, epoch and utterance only, so a resumed run makes the same ones. The ranges are wider than
those of the evaluation's conditions, and microphones and rooms are simulated differently.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from voice_biometrics.augmentation import effects
from voice_biometrics.augmentation.effects import generator_for
from voice_biometrics.augmentation.rooms_and_noises import (
    Babble,
    ColouredNoise,
    RecordedNoise,
    RecordedRooms,
    SimulatedRooms,
)
from voice_biometrics.common.errors import InputError

Mask = Callable[[torch.Tensor], torch.Tensor]


def masked(features: torch.Tensor, masks: Sequence[Mask], seed: str) -> torch.Tensor:
    """Return ``features`` (utterances, frames, features) after all ``masks``, such as SpeechBrain's SpectrogramDrop.

    Masks draw from PyTorch's global generator, which checkpoints do not restore within an epoch. It is seeded with
    ``seed`` here, and restored.
    """
    if not masks:
        return features
    devices = [features.device] if features.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(generator_for(f"masks/{seed}").integers(2**63)))
        for mask in masks:
            features = mask(features)
    return features


SNR_DB = {ColouredNoise: (0.0, 25.0), Babble: (3.0, 20.0), RecordedNoise: (0.0, 20.0)}
MICROPHONE_BANDS = (3, 9)  # number of bands
MICROPHONE_HZ = (80.0, 7600.0)  # range of their frequencies
MICROPHONE_DB = (-12.0, 12.0)  # gain at each
MICROPHONE_S = 0.02  # short, so that it costs little
PEAK = (0.01, 1.0)  # drawn evenly in dB
TELEPHONE_LOW_HZ = (200, 250, 300, 350)
TELEPHONE_HIGH_HZ = (3000, 3200, 3400, 3600)
TELEPHONE_BITS = (6, 7, 8)
SPEEDS = (0.5, 2.0)  # allowed range


class Augmentation:
    """Random augmentation of training crops, different in each epoch.

    Arguments
    ---------
    speeds : one is drawn for each crop; 1.0 is the original speed.
    room, noise, channel, telephone : fraction of crops, 0 to 1, with reverberation; with coloured noise, babble of
        other training speakers or recorded noise; with another microphone and level; with a telephone line.
    noise_folder : recorded noises, such as MUSAN; "": none.
    rir_folder : measured impulse responses, used beside simulated rooms; "": none.

    Raises InputError if a fraction is not within 0 and 1, or speeds are not different numbers of 0.5 to 2.
    """

    def __init__(
        self,
        sample_rate: int,
        seed: int,
        speeds: Sequence[float] = (1.0,),
        room: float = 0.0,
        noise: float = 0.0,
        channel: float = 0.0,
        telephone: float = 0.0,
        noise_folder: str = "",
        rir_folder: str = "",
    ) -> None:
        self.sample_rate, self.seed, self.speeds = sample_rate, seed, check_speeds(speeds)
        self.shares = {"room": room, "noise": noise, "channel": channel, "telephone": telephone}
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"augment_{name} {share}: expected a fraction of the crops, from 0 to 1")
        self.noise_folder, self.rir_folder = noise_folder, rir_folder
        self.rooms: list[SimulatedRooms | RecordedRooms] = []
        self.noises: list[ColouredNoise | Babble | RecordedNoise] = []

    def prepare(self, manifest: pd.DataFrame) -> None:
        """Simulate or list the rooms and noises that are needed; the training ``manifest`` gives the babble.

        Call it once, before loading processes are started: they share the memory.
        """
        if self.shares["room"]:
            self.rooms = [SimulatedRooms(self.sample_rate, self.seed)]
            self.rooms += [RecordedRooms(self.rir_folder, self.sample_rate)] if self.rir_folder else []
        if self.shares["noise"]:
            babble = Babble(manifest, self.sample_rate, self.seed)
            self.noises = [ColouredNoise(self.sample_rate, self.seed), babble]
            self.noises += [RecordedNoise(self.noise_folder, self.sample_rate)] if self.noise_folder else []

    def speed_number(self, epoch: int, utt_id: str) -> int:
        """Return the index in ``speeds`` of an utterance's speed in an epoch."""
        if len(self.speeds) == 1:
            return 0
        return int(generator_for(f"speed/{self.seed}/{epoch}/{utt_id}").integers(len(self.speeds)))

    def __call__(self, samples: np.ndarray, epoch: int, utt_id: str, spk_id: str) -> np.ndarray:
        """Return ``samples`` (samples,) of the speaker ``spk_id``, augmented, with the same length."""
        if not any(self.shares.values()):
            return samples
        rng = generator_for(f"augmentation/{self.seed}/{epoch}/{utt_id}")
        drawn = {name: rng.random() < share for name, share in self.shares.items()}
        if drawn["room"]:
            samples = effects.convolve(samples, self.rooms[rng.integers(len(self.rooms))].draw(rng))
        if drawn["noise"]:
            noise = self.noises[rng.integers(len(self.noises))]
            samples = effects.add_noise(
                samples, noise.draw(samples.size, rng, spk_id), rng.uniform(*SNR_DB[type(noise)])
            )
        if drawn["channel"]:
            samples = effects.equalise(samples, draw_microphone(self.sample_rate, rng))
            samples = effects.scale_to_peak(samples, np.exp(rng.uniform(*np.log(PEAK))))
        if drawn["telephone"]:
            band_hz = (int(rng.choice(TELEPHONE_LOW_HZ)), int(rng.choice(TELEPHONE_HIGH_HZ)))
            samples = effects.telephone_line(samples, self.sample_rate, band_hz, int(rng.choice(TELEPHONE_BITS)))
        return samples


def check_speeds(speeds: Sequence[float]) -> list[float]:
    """Return ``speeds``; InputError unless they are different numbers in the range SPEEDS."""
    speeds = list(speeds) if isinstance(speeds, Sequence) else []
    if not speeds or len(set(speeds)) < len(speeds) or not all(SPEEDS[0] <= speed <= SPEEDS[1] for speed in speeds):
        raise InputError(
            f"speeds {speeds}: expected different numbers from {SPEEDS[0]} to {SPEEDS[1]}; [1.0] changes nothing"
        )
    return speeds


def draw_microphone(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return the impulse response (taps,) of an equaliser with random bands."""
    num_bands = rng.integers(*MICROPHONE_BANDS, endpoint=True)
    band_hz = np.sort(np.exp(rng.uniform(*np.log(MICROPHONE_HZ), num_bands)))
    return effects.equaliser_response(sample_rate, rng.uniform(*MICROPHONE_DB, num_bands), band_hz, MICROPHONE_S)
