"""Training data: random crops of utterances, and batches with several utterances of each speaker."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.dataio.sampler import DistributedSamplerWrapper, ReproducibleRandomSampler
from speechbrain.utils.epoch_loop import EpochCounter
from torch.utils.data import Sampler

from voice_biometrics.augmentation.augment import Augmentation
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_manifest
from voice_biometrics.scoring.embeddings import resolve_num_workers
from voice_biometrics.training.audio_store import AudioStore
from voice_biometrics.training.processes import check_batch, process_number
from voice_biometrics.training.shard_batches import ShardBatches

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


def several_crops(rows: dict[str, dict], crop_every_s: float, sentence_len: float) -> dict[str, dict]:
    """Return manifest rows by ID, with one row per full ``crop_every_s`` seconds of an utterance (0: one row).

    Each row draws its own crop, so long utterances count more. Raises InputError for a negative interval, or if whole
    utterances are read (``sentence_len`` 0).
    """
    if not crop_every_s:
        return rows
    if crop_every_s < 0 or not sentence_len:
        raise InputError(
            f"crop_every_s {crop_every_s}: expected 0, or seconds with a sentence_len above 0, found sentence_len "
            f"{sentence_len} (0: whole utterances)"
        )
    repeated = {}
    for utt_id, row in rows.items():
        num_crops = crops_of(row["duration"], crop_every_s)
        repeated[utt_id] = row
        repeated |= {f"{utt_id}{CROP}{number})": row for number in range(2, num_crops + 1)}
    return repeated


def crops_of(duration_s: float, crop_every_s: float) -> int:
    """Return the number of crops of an utterance in an epoch."""
    return max(1, int(duration_s / crop_every_s)) if crop_every_s else 1


def count_crops(manifest: Path, crop_every_s: float) -> int:
    """Return the number of crops of a manifest in an epoch."""
    return sum(crops_of(duration_s, crop_every_s) for duration_s in read_manifest(manifest)["duration"])


class SpeakerBatches(Sampler[list[int]]):
    """Batches with the same number of utterances of each of several randomly drawn speakers.

    Speakers are equally likely, however many utterances they have; the utterances of a speaker are used in turn,
    shuffled. An epoch has as many batches as the utterances would fill. Batches depend on seed and epoch only.

    Arguments
    ---------
    speakers : speaker of each utterance (utterances,).
    batch_size : utterances per batch.
    utterances_per_speaker : at least 2; divides ``batch_size``.
    seed : of the draws.
    process, num_processes : yield this one's equal part of each batch, of whole speakers; all by default.

    Raises
    ------
    InputError : such batches cannot be filled, or a speaker has too few utterances.
    """

    def __init__(
        self,
        speakers: Sequence[str],
        batch_size: int,
        utterances_per_speaker: int,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.per_speaker = utterances_per_speaker
        self.speakers_per_batch, rest = divmod(batch_size, utterances_per_speaker)
        self.part = slice(process * batch_size // num_processes, (process + 1) * batch_size // num_processes)
        self.num_batches = len(speakers) // batch_size
        self.seed = seed
        self.epoch = 0
        self.rows_of: dict[str, list[int]] = {}
        for row, speaker in enumerate(speakers):
            self.rows_of.setdefault(speaker, []).append(row)
        if utterances_per_speaker < 2 or rest:
            raise InputError(
                f"utterances_per_speaker {utterances_per_speaker}: expected 0, or at least 2 and a divisor of "
                f"batch_size {batch_size}"
            )
        if len(self.rows_of) < self.speakers_per_batch:
            raise InputError(
                f"batch_size: {self.speakers_per_batch} speakers of {self.per_speaker} utterances each, but there are "
                f"{len(self.rows_of)} training speakers; give a smaller --batch_size"
            )
        few = min(self.rows_of, key=lambda speaker: len(self.rows_of[speaker]))
        if len(self.rows_of[few]) < self.per_speaker:
            raise InputError(
                f"speaker {few}: expected at least {self.per_speaker} utterances for utterances_per_speaker "
                f"{self.per_speaker}, found {len(self.rows_of[few])}; leave out such speakers, or take several crops "
                "of long utterances (crop_every_s)"
            )

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of another epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        waiting: dict[str, list[int]] = {speaker: [] for speaker in self.rows_of}
        for _ in range(self.num_batches):
            batch = []
            for speaker in rng.sample(list(self.rows_of), self.speakers_per_batch):
                if len(waiting[speaker]) < self.per_speaker:
                    waiting[speaker] = rng.sample(self.rows_of[speaker], len(self.rows_of[speaker]))
                batch += [waiting[speaker].pop() for _ in range(self.per_speaker)]
            yield batch[self.part]


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
