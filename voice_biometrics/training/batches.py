"""Batches of chosen utterances: several of each speaker, or from a few tar files (``data_prep.shards``) at a time."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from voice_biometrics.common.audio import TAR_MEMBER, containing_file
from voice_biometrics.common.errors import InputError


class EpochBatches(Sampler[list[int]]):
    """Batches, by row numbers, that depend on seed and epoch only. ``num_batches`` are in each epoch."""

    def __init__(self, seed: int, num_batches: int) -> None:
        self.seed, self.epoch, self.num_batches = seed, 0, num_batches

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of another epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def generator(self) -> random.Random:
        """Return the generator of this epoch."""
        return random.Random(f"{self.seed}/{self.epoch}")


class SpeakerBatches(EpochBatches):
    """Batches with the same number of utterances of each of several randomly drawn speakers.

    Speakers are equally likely, however many utterances they have; the utterances of a speaker are used in turn,
    shuffled. An epoch has as many batches as the utterances would fill.

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
        super().__init__(seed, len(speakers) // batch_size)
        self.per_speaker = utterances_per_speaker
        self.speakers_per_batch, rest = divmod(batch_size, utterances_per_speaker)
        self.part = slice(process * batch_size // num_processes, (process + 1) * batch_size // num_processes)
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

    def __iter__(self) -> Iterator[list[int]]:
        rng = self.generator()
        waiting: dict[str, list[int]] = {speaker: [] for speaker in self.rows_of}
        for _ in range(self.num_batches):
            batch = []
            for speaker in rng.sample(list(self.rows_of), self.speakers_per_batch):
                if len(waiting[speaker]) < self.per_speaker:
                    waiting[speaker] = rng.sample(self.rows_of[speaker], len(self.rows_of[speaker]))
                batch += [waiting[speaker].pop() for _ in range(self.per_speaker)]
            yield batch[self.part]


class ShardBatches(EpochBatches):
    """Batches of utterances drawn from ``window`` tar files at a time, so that an epoch reads each file in one stretch.

    Process p of n draws from every n-th file, so its host needs no other. All processes have as many batches as the one
    with the fewest utterances.

    Arguments
    ---------
    wavs : of the utterances, as ``<tar file>:<first byte>:<size>``.
    batch_size : utterances in a batch of this process.
    window : number of tar files.
    seed : of the draws.
    process, num_processes : this process, from 0, and how many there are.

    Raises
    ------
    InputError : an utterance is in no tar file, or a process has no batch.
    """

    def __init__(
        self, wavs: Sequence[str], batch_size: int, window: int, seed: int, process: int = 0, num_processes: int = 1
    ) -> None:
        if stray := next((wav for wav in wavs if not TAR_MEMBER.fullmatch(wav)), None):
            raise InputError(
                f"shard_window {window}: expected utterances in shards (python -m data_prep shards), {stray}"
            )
        rows_of: dict[str, list[int]] = {}
        for row, wav in enumerate(wavs):
            rows_of.setdefault(str(containing_file(wav)), []).append(row)
        parts = [[rows_of[path] for path in sorted(rows_of)[number::num_processes]] for number in range(num_processes)]
        super().__init__(seed, min(sum(map(len, part)) // batch_size for part in parts))
        if not self.num_batches:
            raise InputError(
                f"shard_window {window}: {len(rows_of)} tar files give each of {num_processes} processes less than a "
                f"batch of {batch_size}; make more and smaller shards (--mib), or give shard_window 0"
            )
        self.shards, self.batch_size, self.window = parts[process], batch_size, window

    def __iter__(self) -> Iterator[list[int]]:
        rng = self.generator()
        shards = rng.sample(self.shards, len(self.shards))
        order: list[int] = []
        for start in range(0, len(shards), self.window):
            rows = sum(shards[start : start + self.window], [])
            order += rng.sample(rows, len(rows))
        for start in range(0, self.num_batches * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]
