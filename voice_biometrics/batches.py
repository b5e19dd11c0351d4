"""Which utterances make a batch: drawn at random, or some of each of a few speakers."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from voice_biometrics.errors import InputError


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
