"""Training data: manifest rows, random crops of utterances, and the loader of batches."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.sampler import DistributedSamplerWrapper, ReproducibleRandomSampler
from speechbrain.utils.epoch_loop import EpochCounter

from voice_biometrics.augmentation.augment import Augmentation
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_manifest
from voice_biometrics.scoring.embeddings import resolve_num_workers
from voice_biometrics.training.audio_store import AudioStore
from voice_biometrics.training.batches import ShardBatches, SpeakerBatches
from voice_biometrics.training.processes import check_batch, process_number

CROP = " (crop "  # between the ID of an utterance and the number of its crop


class CropReader:
    """Read a random crop of an utterance, another one in each epoch, and augment it.

    The crop and its augmentation depend on seed, epoch and utterance only, so a resumed run reads the same crops.

    Arguments
    ---------
    duration_s : length of a crop, seconds; 0 for whole utterances.
    sample_rate : Hz.
    seed : of the crops.
    augmentation : also draws the speed.
    epoch_counter : gives the current epoch.
    store : decoded audio to read from instead of the files, if any.
    """

    def __init__(
        self,
        duration_s: float,
        sample_rate: int,
        seed: int,
        augmentation: Augmentation,
        epoch_counter: EpochCounter,
        store: AudioStore | None = None,
    ) -> None:
        self.duration_s = duration_s
        self.sample_rate = sample_rate
        self.seed = seed
        self.augmentation = augmentation
        self.epoch_counter = epoch_counter
        self.store = store

    def speed_number(self, utt_id: str) -> int:
        """Return the index of the speed of an utterance in this epoch."""
        return self.augmentation.speed_number(self.epoch_counter.current, utt_id)

    def __call__(self, utt_id: str, wav: str, start: int, stop: int, duration_s: float, spk_id: str) -> torch.Tensor:
        """Return a crop, float32 (samples,); a shorter utterance is repeated."""
        speed = self.augmentation.speeds[self.speed_number(utt_id)]
        samples = self._read_stored(utt_id) if self.store else self._read(utt_id, wav, start, stop, duration_s, speed)
        return torch.from_numpy(self.augmentation(samples, self.epoch_counter.current, utt_id, spk_id))

    def _read(self, utt_id: str, wav: str, start: int, stop: int, duration_s: float, speed: float) -> np.ndarray:
        if not self.duration_s:
            return read_audio(wav, self.sample_rate, start, stop, speed)
        num_samples = round(self.duration_s * self.sample_rate)
        file_rate = (stop - start) / duration_s
        length = int(np.ceil(self.duration_s * file_rate * speed)) + 1  # at the file's rate; one more for resampling
        if stop - start > length:
            rng = random.Random(f"{self.seed}/{self.epoch_counter.current}/{utt_id}")
            start += rng.randrange(stop - start - length + 1)
            stop = start + length
        return repeat_to(read_audio(wav, self.sample_rate, start, stop, speed), num_samples)[:num_samples]

    def _read_stored(self, utt_id: str) -> np.ndarray:
        """Read a crop of the decoded audio."""
        speed_number, stored = self.speed_number(utt_id), whole_utterance(utt_id)
        if not self.duration_s:
            return self.store.read(stored, speed_number)
        num_samples = round(self.duration_s * self.sample_rate)
        spare = max(0, self.store.num_samples(stored, speed_number) - num_samples)
        start = random.Random(f"{self.seed}/{self.epoch_counter.current}/{utt_id}").randrange(spare + 1)
        return repeat_to(self.store.read(stored, speed_number, start, start + num_samples), num_samples)


def whole_utterance(crop_id: str) -> str:
    """Return the ID of the utterance that a row of ``several_crops`` is cut from."""
    return crop_id.partition(CROP)[0]


def several_crops(manifest: pd.DataFrame, crop_every_s: float, sentence_len: float) -> pd.DataFrame:
    """Return a manifest with one row per full ``crop_every_s`` seconds of an utterance (0: one row).

    Each row draws its own crop, so long utterances count more. Raises InputError for a negative interval, or if whole
    utterances are read (``sentence_len`` 0).
    """
    if not crop_every_s:
        return manifest
    if crop_every_s < 0 or not sentence_len:
        raise InputError(
            f"crop_every_s {crop_every_s}: expected 0, or seconds with a sentence_len above 0, found sentence_len "
            f"{sentence_len} (0: whole utterances)"
        )
    repeated = manifest.loc[manifest.index.repeat(_num_crops(manifest["duration"], crop_every_s))]
    number = repeated.groupby(level=0).cumcount() + 1
    names = repeated["ID"].where(number == 1, repeated["ID"] + CROP + number.astype(str) + ")")
    return repeated.assign(ID=names).reset_index(drop=True)


def _num_crops(durations_s: pd.Series, crop_every_s: float) -> pd.Series:
    return (durations_s / crop_every_s).astype(int).clip(lower=1)


def count_crops(manifest: Path, crop_every_s: float) -> int:
    """Return the number of crops of a manifest in an epoch."""
    durations_s = read_manifest(manifest)["duration"]
    return int(_num_crops(durations_s, crop_every_s).sum()) if crop_every_s else len(durations_s)


class ManifestRows(Mapping):
    """Manifest rows by utterance ID, for SpeechBrain's datasets: made when asked for, from columns.

    A dict of dicts would take three times the memory, in each of the processes.
    """

    def __init__(self, manifest: pd.DataFrame) -> None:
        self.number_of = {utt_id: number for number, utt_id in enumerate(manifest["ID"])}
        self.columns = {name: manifest[name].array for name in manifest if name != "ID"}

    def __getitem__(self, utt_id: str) -> dict:
        number = self.number_of[utt_id]
        return {name: column[number] for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.number_of)

    def __len__(self) -> int:
        return len(self.number_of)


def train_loader_options(hparams: dict, speakers: Sequence[str], device: str, wavs: Sequence[str] = ()) -> dict:
    """Return the options of the training loader for this process's equal part of each batch.

    These are ``dataloader_options`` with a sampler, or with ``SpeakerBatches`` or ``ShardBatches``. A step takes the
    same utterances with any number of processes, except from shards. ``speakers`` and ``wavs`` (utterances,) are those
    of the training part. Raises InputError if it does not fill a batch, or the processes cannot share one equally.
    """
    options, per_speaker = dict(hparams["dataloader_options"]), hparams["utterances_per_speaker"]
    options["num_workers"] = resolve_num_workers(options["num_workers"], device)
    if len(speakers) < options["batch_size"]:
        raise InputError(
            f"training part: expected at least one batch of {options['batch_size']} utterances, found "
            f"{len(speakers)}; give a smaller --batch_size"
        )
    process, num_processes = process_number()
    check_batch(options["batch_size"], num_processes)
    place, window = (hparams["seed"], process, num_processes), hparams["shard_window"]
    if per_speaker and window:
        raise InputError(f"shard_window {window}: expected 0 with utterances_per_speaker {per_speaker}")
    if per_speaker or window:
        batch_size = options.pop("batch_size")
        options = {key: value for key, value in options.items() if key not in ("shuffle", "drop_last")}
        if window:
            return options | {"batch_sampler": ShardBatches(wavs, batch_size // num_processes, window, *place)}
        check_batch(batch_size // per_speaker, num_processes)
        return options | {"batch_sampler": SpeakerBatches(speakers, batch_size, per_speaker, *place)}
    order = ReproducibleRandomSampler(speakers, hparams["seed"])
    if num_processes > 1:
        order = DistributedSamplerWrapper(
            order, num_replicas=num_processes, rank=process, shuffle=False, drop_last=True
        )
    return options | {"sampler": order, "shuffle": False, "batch_size": options["batch_size"] // num_processes}
