"""Rooms and noises for augmentation: simulated once per run from the seed, or read from folders.

Rooms and voices are kept in memory, since drawing them must cost far less than a training step.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
from tqdm import tqdm

from voice_biometrics.augmentation.effects import coloured_noise, generator_for
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.audio_files import list_audio, read_header
from voice_biometrics.common.errors import InputError

NUM_ROOMS = 128
ROOM_SIZE_M = ((2.5, 2.0, 2.2), (10.0, 7.0, 3.8))
ROOM_ABSORPTION = (0.1, 0.6)  # of the energy, at each reflection
ROOM_REFLECTIONS = 17  # beyond these little is left, and each costs more than the one before
SPEAKER_DISTANCE_M = (0.15, 3.0)
MAX_RESPONSE_S = 0.5
MAX_RESPONSE_FILE_S = 10.0  # longer ones are recordings of something else

NUM_NOISES, NOISE_S = 16, 10.0
NOISE_SLOPE = (-0.5, 2.5)  # the evaluation's colours are 0 to 2

NUM_VOICES, VOICE_S = 200, 4.0
VOICES_TOGETHER = (3, 8)


class SimulatedRooms:
    """Shoebox rooms with a random speaker and microphone position, by the image source method."""

    def __init__(self, sample_rate: int, seed: int) -> None:
        rng = generator_for(f"rooms/{seed}")
        bar = tqdm(range(NUM_ROOMS), desc="simulated rooms", unit="room", dynamic_ncols=True)
        self.responses = [_simulate_room(sample_rate, rng) for _ in bar]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return an impulse response (taps,) that begins with its direct sound."""
        return self.responses[rng.integers(len(self.responses))]


def _simulate_room(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    import pyroomacoustics  # here, since it loads slowly and most runs need no rooms

    size_m = rng.uniform(*ROOM_SIZE_M)
    walls = pyroomacoustics.Material(rng.uniform(*ROOM_ABSORPTION))
    room = pyroomacoustics.ShoeBox(size_m, fs=sample_rate, materials=walls, max_order=ROOM_REFLECTIONS)
    microphone_m = rng.uniform(0.3, size_m - 0.3)
    direction = rng.standard_normal(3)
    distance_m = np.exp(rng.uniform(*np.log(SPEAKER_DISTANCE_M)))
    speaker_m = np.clip(microphone_m + distance_m * direction / np.linalg.norm(direction), 0.2, size_m - 0.2)
    room.add_source(speaker_m)
    room.add_microphone(microphone_m)
    room.compute_rir()
    return from_direct_sound(room.rir[0][0], sample_rate)


def from_direct_sound(response: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return ``response`` (taps,) from its largest tap on, which becomes 1, float32 and at most MAX_RESPONSE_S long."""
    direct = int(np.abs(response).argmax())
    kept = response[direct : direct + round(MAX_RESPONSE_S * sample_rate)]
    return (kept / kept[0]).astype(np.float32)


class RecordedRooms:
    """Measured impulse responses: the first channel of the audio files in a folder."""

    def __init__(self, folder: str, sample_rate: int) -> None:
        self.folder, self.sample_rate = Path(folder), sample_rate
        self.paths = list_below(self.folder, "rir_folder", "impulse responses")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return an impulse response (taps,) that begins with its direct sound."""
        return _read_response(self.folder / self.paths[rng.integers(len(self.paths))], self.sample_rate)


@lru_cache(maxsize=1024)
def _read_response(path: Path, sample_rate: int) -> np.ndarray:
    header = read_header(path, decode=True)
    if header.fault or header.num_samples > MAX_RESPONSE_FILE_S * header.sample_rate:
        found = header.fault or f"{header.num_samples / header.sample_rate:.0f} s"
        raise InputError(
            f"{path}: expected an impulse response of at most {MAX_RESPONSE_FILE_S:.0f} s, found: {found}; check "
            "--rir_folder"
        )
    channels, file_rate = soundfile.read(path, dtype="float32", always_2d=True)  # (taps, channels)
    response = np.ascontiguousarray(channels[:, 0])  # a mean would be a room heard at several places at once
    return from_direct_sound(soxr.resample(response, file_rate, sample_rate), sample_rate)


class ColouredNoise:
    """Noise of random colours; each draw mixes two of them."""

    def __init__(self, sample_rate: int, seed: int) -> None:
        rng = generator_for(f"noises/{seed}")
        num_samples = round(NOISE_S * sample_rate)
        self.noises = [
            coloured_noise(num_samples, sample_rate, rng, rng.uniform(*NOISE_SLOPE)) for _ in range(NUM_NOISES)
        ]

    def draw(self, num_samples: int, rng: np.random.Generator, spk_id: str) -> np.ndarray:
        """Return noise (samples,)."""
        first, second = rng.integers(NUM_NOISES, size=2)
        share = np.float32(rng.random())
        return share * loop(self.noises[first], num_samples, rng) + (1 - share) * loop(
            self.noises[second], num_samples, rng
        )


class Babble:
    """Several training speakers talking at once, never the speaker of the crop."""

    def __init__(self, manifest: pd.DataFrame, sample_rate: int, seed: int) -> None:
        rng = generator_for(f"voices/{seed}")
        chosen = manifest.iloc[rng.choice(len(manifest), min(NUM_VOICES, len(manifest)), replace=False)]
        bar = tqdm(chosen.to_dict("records"), desc="voices for babble", unit="utt", dynamic_ncols=True)
        self.sounds = [_read_voice(row, sample_rate) for row in bar]
        self.speakers = chosen["spk_id"].to_numpy(dtype=object)

    def draw(self, num_samples: int, rng: np.random.Generator, spk_id: str) -> np.ndarray:
        """Return babble (samples,); silence if there are no speakers but ``spk_id``."""
        others = np.flatnonzero(self.speakers != spk_id)
        babble = np.zeros(num_samples, np.float32)
        for number in rng.choice(others, rng.integers(*VOICES_TOGETHER, endpoint=True)) if others.size else ():
            babble += loop(self.sounds[number], num_samples, rng)
        return babble


def _read_voice(row: Mapping, sample_rate: int) -> np.ndarray:
    """Return the beginning of an utterance with a mean power of 1."""
    start, stop = int(row["start"]), int(row["stop"])
    length = round((stop - start) * min(1.0, VOICE_S / row["duration"]))
    samples = read_audio(row["wav"], sample_rate, start, start + length)
    return samples / max(np.sqrt(np.mean(samples**2)), 1e-6)


class RecordedNoise:
    """The files of a folder such as MUSAN, without those in folders called ``speech``."""

    def __init__(self, folder: str, sample_rate: int) -> None:
        self.folder, self.sample_rate = Path(folder), sample_rate
        paths = list_below(self.folder, "noise_folder", "noises")
        self.paths = [path for path in paths if "speech" not in path.split("/")[:-1]]
        if not self.paths:
            raise InputError(f"{folder}: expected noises besides speech/, found none; check --noise_folder")

    def draw(self, num_samples: int, rng: np.random.Generator, spk_id: str) -> np.ndarray:
        """Return a random part (samples,) of a random file, repeated if the file is shorter."""
        path = self.folder / self.paths[rng.integers(len(self.paths))]
        header = read_header(path)
        if header.fault:
            raise InputError(f"{path}: expected noise, found: {header.fault}; repair or remove the file")
        wanted = int(np.ceil(num_samples / self.sample_rate * header.sample_rate)) + 1
        start = int(rng.integers(max(0, header.num_samples - wanted) + 1))
        part = read_audio(path, self.sample_rate, start, min(start + wanted, header.num_samples))
        return repeat_to(part, num_samples)[:num_samples]


def list_below(folder: Path, key: str, expected: str) -> list[str]:
    """Return the audio files below ``folder``, relative and sorted; InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f'{folder}: expected a folder of {expected}, found none; check --{key} ("" does without)')
    return list_audio(folder)


def loop(sound: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``num_samples`` of the repeated ``sound``, from a random start."""
    start = rng.integers(sound.size)
    part = sound[start : start + num_samples]
    return part if part.size == num_samples else repeat_to(np.roll(sound, -start), num_samples)[:num_samples]
