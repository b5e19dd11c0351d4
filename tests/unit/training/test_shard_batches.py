"""Batches from shards: all utterances of few files at a time, of other files in other processes."""

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.training.batches import ShardBatches

WAVS = [f"/s/train-{row % 7:06d}.tar:{512 * row}:400" for row in range(70)]  # 10 utterances in each of 7 files


def files_of(batches: list[list[int]]) -> list[str]:
    return [WAVS[row].partition(":")[0] for batch in batches for row in batch]


def test_an_epoch_has_every_utterance_once_and_reads_each_file_in_one_stretch():
    batches = list(ShardBatches(WAVS, 5, 2, seed=1))
    assert sorted(sum(batches, [])) == list(range(70))
    files = files_of(batches)
    for start in range(0, 70, 20):  # two files at a time
        assert len(set(files[start : start + 20])) <= 2
    assert len(set(files[:20])) == 2 and files[:10] != sorted(files[:10], key=files.index)


def test_processes_draw_from_files_of_their_own_and_have_as_many_batches():
    samplers = [ShardBatches(WAVS, 4, 3, 1, process, 2) for process in (0, 1)]
    files = [set(), set()]
    for epoch in range(10):
        for sampler, found in zip(samplers, files, strict=True):
            sampler.set_epoch(epoch)
            found |= set(files_of(list(sampler)))
    assert (len(files[0]), len(files[1]), len(files[0] & files[1])) == (4, 3, 0)
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers] == [7, 7]


def test_batches_depend_on_seed_and_epoch_only():
    sampler, other = ShardBatches(WAVS, 5, 2, seed=1), ShardBatches(WAVS, 5, 2, seed=2)
    first = list(sampler)
    assert list(sampler) == first != list(other)
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_faults_are_told():
    with pytest.raises(InputError, match="/files/a.wav"):
        ShardBatches([*WAVS, "/files/a.wav"], 5, 2, 1)
    with pytest.raises(InputError, match="7 tar files give each of 8 processes less than a batch of 5"):
        ShardBatches(WAVS, 5, 2, 1, 0, 8)
