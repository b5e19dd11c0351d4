"""Manifest to SpeechBrain dataset: random training crops, whole utterances, speaker labels.

Which utterances make a batch: drawn at random, or some of each of a few speakers.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from torch.utils.data import Sampler

from voice_biometrics.augmentation.augment import Augmentation
from voice_biometrics.augmentation.rooms_and_noises import Voice
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError


class SpeakerBatches(Sampler[list[int]]):
    """Batches of equally many utterances of speakers drawn at random; in an epoch as many as the utterances would fill.

    Speakers count alike, however many utterances they have; a speaker's utterances come in turn, shuffled. The batches
    follow from seed and epoch alone.

    Arguments
    ---------
    speakers: of each utterance (utterances,).
    batch_size: utterances in a batch.
    utterances_per_speaker: 2 or more; ``batch_size`` is a multiple of it.
    seed: of the draws.

    Raises
    ------
    InputError: a batch cannot be filled so, or a speaker has too few utterances.
    """

    def __init__(self, speakers: Sequence[str], batch_size: int, utterances_per_speaker: int, seed: int) -> None:
        self.per_speaker = utterances_per_speaker
        self.speakers_per_batch, rest = divmod(batch_size, utterances_per_speaker)
        self.num_batches = len(speakers) // batch_size
        self.seed = seed
        self.epoch = 0
        self.rows_of: dict[str, list[int]] = {}
        for row, speaker in enumerate(speakers):
            self.rows_of.setdefault(speaker, []).append(row)
        if utterances_per_speaker < 2 or rest:
            raise InputError(
                f"utterances_per_speaker {utterances_per_speaker}: expected 0, or 2 or more that divide batch_size "
                f"{batch_size}"
            )
        self._check_speakers()

    def _check_speakers(self) -> None:
        """Raise InputError when there are too few speakers for a batch, or a speaker has too few utterances."""
        if len(self.rows_of) < self.speakers_per_batch:
            raise InputError(
                f"batch_size: {self.speakers_per_batch} speakers of {self.per_speaker} utterances each are more than "
                f"the {len(self.rows_of)} training speakers; give a smaller --batch_size"
            )
        few = min(self.rows_of, key=lambda speaker: len(self.rows_of[speaker]))
        if len(self.rows_of[few]) < self.per_speaker:
            raise InputError(
                f"speaker {few}: expected {self.per_speaker} utterances or more for utterances_per_speaker "
                f"{self.per_speaker}, found {len(self.rows_of[few])}; leave such speakers out, or make several crops "
                "of long utterances (crop_every_s)"
            )

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches."""
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
            yield batch


def loading_options(hparams: dict, speakers: Sequence[str]) -> dict:
    """Return the options of the training loader, for a training part of these ``speakers`` (utterances,).

    Raises InputError when the training part does not fill a batch.
    """
    batch_size, per_speaker = hparams["batch_size"], hparams["utterances_per_speaker"]
    if len(speakers) < batch_size:
        raise InputError(
            f"training part: expected at least one batch of {batch_size} utterances, found {len(speakers)}; give a "
            f"smaller --batch_size"
        )
    options = {"num_workers": hparams["num_workers"]}
    if per_speaker:
        return options | {"batch_sampler": SpeakerBatches(speakers, batch_size, per_speaker, hparams["seed"])}
    return options | {"batch_size": batch_size, "shuffle": True, "drop_last": True}


class CropReader:
    """Reads a random crop of each utterance, a new one each epoch, and augments it.

    Where a crop starts and how it is augmented follows from seed, epoch and utterance alone, so that a run that was
    stopped goes on exactly as it would have. Set ``epoch`` at the start of each epoch.
    """

    def __init__(
        self, duration_s: float, sample_rate: int, seed: int, augmentation: Augmentation | None = None
    ) -> None:
        """``duration_s`` is the crop's length in seconds; 0 means whole utterances."""
        self.duration_s = duration_s
        self.sample_rate = sample_rate  # Hz
        self.seed = seed
        self.augmentation = augmentation or Augmentation(sample_rate, seed)
        self.epoch = 0

    def __call__(
        self, utt_id: str, wav: str, start: int, stop: int, duration_s: float, spk_id: str = ""
    ) -> torch.Tensor:
        """Return float32 (samples,): the crop, a shorter utterance being repeated, or the whole utterance."""
        samples = self._read(utt_id, wav, start, stop, duration_s)
        return torch.from_numpy(self.augmentation(samples, self.epoch, utt_id, spk_id))

    def _read(self, utt_id: str, wav: str, start: int, stop: int, duration_s: float) -> np.ndarray:
        speed = self.augmentation.speeds[self.augmentation.speed_number(self.epoch, utt_id)]
        if not self.duration_s:
            return read_audio(wav, self.sample_rate, start, stop, speed)
        num_samples = round(self.duration_s * self.sample_rate)
        file_rate = (stop - start) / duration_s
        length = int(np.ceil(self.duration_s * file_rate * speed)) + 1  # at the file's rate; one for resampling
        if stop - start > length:
            start += random.Random(f"{self.seed}/{self.epoch}/{utt_id}").randrange(stop - start - length + 1)
            stop = start + length
        return repeat_to(read_audio(wav, self.sample_rate, start, stop, speed), num_samples)[:num_samples]


def training_dataset(
    manifest_file: Path, replacements: dict[str, str], crops: CropReader, crop_every_s: float = 0
) -> DynamicItemDataset:
    """Return the dataset of ``id``, ``sig`` (samples,) and ``spk_id_encoded`` (1,), speakers numbered by name.

    At another speed they are further speakers, numbered after all those at the speeds before. With ``crop_every_s`` a
    long utterance is there several times (``several_crops``). The rooms and noises of the augmentation are made.
    """
    rows = load_data_csv(str(manifest_file), replacements)
    if crop_every_s:
        rows = several_crops(rows, crop_every_s, crops.duration_s)
    dataset = DynamicItemDataset(rows)
    crops.augmentation.prepare(
        Voice(row["spk_id"], row["wav"], int(row["start"]), int(row["stop"]), row["duration"])
        for row in dataset.data.values()
    )

    @sb.utils.data_pipeline.takes("id", "wav", "start", "stop", "duration", "spk_id")
    @sb.utils.data_pipeline.provides("sig")
    def read_crop(utt_id: str, wav: str, start: str, stop: str, duration: float, spk_id: str) -> torch.Tensor:
        return crops(utt_id, wav, int(start), int(stop), duration, spk_id)

    encoder = CategoricalEncoder()

    @sb.utils.data_pipeline.takes("id", "spk_id")
    @sb.utils.data_pipeline.provides("spk_id_encoded")
    def encode_speaker(utt_id: str, spk_id: str) -> torch.Tensor:
        speed_number = crops.augmentation.speed_number(crops.epoch, utt_id)
        return torch.LongTensor([encoder.encode_label(spk_id) + speed_number * len(speakers)])

    dataset.add_dynamic_item(read_crop)
    dataset.add_dynamic_item(encode_speaker)
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    speakers = sorted({row["spk_id"] for row in dataset.data.values()})
    encoder.update_from_iterable(speakers)
    encoder.expect_len(len(speakers))
    return dataset


def several_crops(rows: dict[str, dict], crop_every_s: float, sentence_len: float) -> dict[str, dict]:
    """Return ``rows`` (of a manifest, by ID) with a row for each full ``crop_every_s`` seconds of an utterance.

    So an utterance counts as much as it is long; where each of its crops starts is drawn by itself. Raises InputError
    when the interval is negative, or there are no crops, since whole utterances are read.
    """
    if crop_every_s < 0 or not sentence_len:
        raise InputError(
            f"crop_every_s {crop_every_s}: expected 0, or seconds with a sentence_len above 0 (it is "
            f"{sentence_len}, and 0 means whole utterances)"
        )
    repeated = {}
    for utt_id, row in rows.items():
        num_crops = max(1, int(row["duration"] / crop_every_s))
        repeated[utt_id] = row
        repeated |= {f"{utt_id} (crop {number})": row for number in range(2, num_crops + 1)}
    return repeated
