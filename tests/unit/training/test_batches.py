"""Batches of a few utterances of each speaker."""

from collections import Counter

import pytest
from torch.utils.data import DataLoader

from voice_biometrics.common.errors import InputError
from voice_biometrics.training import dataio
from voice_biometrics.training.batches import SpeakerBatches
from voice_biometrics.training.dataio import train_loader_options

SPEAKERS = [name for name, count in (("a", 4), ("b", 9), ("c", 5), ("d", 2), ("e", 4)) for _ in range(count)]


def batches(epoch: int = 1, seed: int = 0) -> list[list[int]]:
    sampler = SpeakerBatches(SPEAKERS, batch_size=6, utterances_per_speaker=2, seed=seed)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler) == 4  # 24 utterances
    return found


def test_a_batch_has_two_different_utterances_of_each_of_three_speakers():
    for epoch in range(50):
        for batch in batches(epoch):
            assert len(set(batch)) == 6
            assert sorted(Counter(SPEAKERS[row] for row in batch).values()) == [2, 2, 2]


def test_batches_follow_from_seed_and_epoch():
    assert batches(1, 0) == batches(1, 0)
    assert batches(1, 0) != batches(2, 0) and batches(1, 0) != batches(1, 1)


def test_speakers_count_alike_and_all_of_their_utterances_are_used():
    drawn = Counter(row for epoch in range(400) for batch in batches(epoch) for row in batch)
    of_speaker = Counter()
    for row, count in drawn.items():
        of_speaker[SPEAKERS[row]] += count
    assert set(drawn) == set(range(24))
    assert max(of_speaker.values()) < 1.1 * min(of_speaker.values())


def test_batches_that_cannot_be_filled_are_refused():
    for batch_size, per_speaker, found in (
        (6, 1, "utterances_per_speaker"),
        (6, 4, "batch_size 6"),
        (12, 2, "6 speakers.* 5 "),
        (6, 3, "speaker d: expected at least 3"),
        (6, -2, "utterances_per_speaker"),
    ):
        with pytest.raises(InputError, match=found):
            SpeakerBatches(SPEAKERS, batch_size, per_speaker, seed=0)


def loaded(monkeypatch, per_speaker: int, num_processes: int, batch_size: int = 12) -> list[list[set[int]]]:
    """Return the rows of each batch of an epoch, in each process."""
    options = {"batch_size": batch_size, "num_workers": "auto", "shuffle": True, "drop_last": True}
    hparams = {"dataloader_options": options, "utterances_per_speaker": per_speaker, "shard_window": 0, "seed": 0}
    found = []
    for process in range(num_processes):
        monkeypatch.setattr(dataio, "process_number", lambda number=process: (number, num_processes))
        given = train_loader_options(hparams, SPEAKERS[:23] + ["e"], "cpu")
        sampler = given.get("batch_sampler") or given["sampler"]
        sampler.set_epoch(1)
        loader = DataLoader(range(24), **given)
        found.append([set(batch.tolist()) for batch in loader])
    return found


@pytest.mark.parametrize("per_speaker", [0, 2])
def test_processes_share_each_batch_of_one_process(monkeypatch, per_speaker):
    (whole,) = loaded(monkeypatch, per_speaker, 1, batch_size=8)
    shared = loaded(monkeypatch, per_speaker, 2, batch_size=8)
    assert [len(batch) for batch in whole] == [8, 8, 8]
    assert [len(batch) for part in shared for batch in part] == 6 * [4]
    assert [first | second for first, second in zip(*shared, strict=True)] == whole


def test_batches_that_cannot_be_shared_or_filled_are_refused(monkeypatch):
    with pytest.raises(InputError, match="batch_size 8.*3 processes"):
        loaded(monkeypatch, 0, 3, batch_size=8)
    with pytest.raises(InputError, match="2 processes"):
        loaded(monkeypatch, 2, 2, batch_size=6)  # 3 speakers
    with pytest.raises(InputError, match="smaller --batch_size"):
        loaded(monkeypatch, 0, 1, batch_size=25)
