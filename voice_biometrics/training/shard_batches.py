"""Batches from a few tar files at a time (``data_prep.shards``), each process from its own files."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from voice_biometrics.common.audio import TAR_MEMBER, containing_file
from voice_biometrics.common.errors import InputError


class ShardBatches(Sampler[list[int]]):
    """Batches of utterances drawn from ``window`` tar files at a time, so that an epoch reads each file in one stretch.

    Process p of n draws from every n-th file, so its host needs no other. All processes have as many batches as the one
    with the fewest utterances. Batches depend on seed and epoch only.

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
        self.num_batches = min(sum(map(len, part)) // batch_size for part in parts)
        if not self.num_batches:
            raise InputError(
                f"shard_window {window}: {len(rows_of)} tar files give each of {num_processes} processes less than a "
                f"batch of {batch_size}; make more and smaller shards (--mib), or give shard_window 0"
            )
        self.shards, self.batch_size, self.window = parts[process], batch_size, window
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of another epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        shards = rng.sample(self.shards, len(self.shards))
        order: list[int] = []
        for start in range(0, len(shards), self.window):
            rows = sum(shards[start : start + self.window], [])
            order += rng.sample(rows, len(rows))
        for start in range(0, self.num_batches * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]
