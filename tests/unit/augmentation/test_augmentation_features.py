"""Masking: whole frames or whole features become the mean, by a seed of its own."""

import torch
from speechbrain.augment.freq_domain import SpectrogramDrop

from voice_biometrics.augmentation.augment import masked
from voice_biometrics.experiment.hparams import read_command_line

FRAMES = [SpectrogramDrop(dim=1)]


def features() -> torch.Tensor:
    return torch.randn(8, 100, 80, generator=torch.Generator().manual_seed(0)) + 10


def test_masks_follow_from_their_seed_and_leave_the_common_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = masked(features(), FRAMES, "1/1/u")
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, masked(features(), FRAMES, "1/1/u"))
    assert not torch.equal(first, masked(features(), FRAMES, "1/2/u"))


def test_no_masks_change_nothing():
    assert torch.equal(masked(features(), [], "1/1/u"), features())


def test_the_variant_masks_pieces_of_time_and_of_features_of_each_utterance():
    run = read_command_line(["hparams/ablations/augmentation/augment_masking.yaml"], "usage")
    masks = run.build()["feature_masks"]
    by_frame, by_feature, alike = [], [], 0
    for draw in range(20):
        zeros = masked(features(), masks, str(draw)) == 0
        frames, columns = zeros.all(dim=2), zeros.all(dim=1)  # (utterances, frames), (utterances, features)
        assert torch.equal(zeros, frames[:, :, None] | columns[:, None, :])
        by_frame += frames.sum(dim=1).tolist()
        by_feature += columns.sum(dim=1).tolist()
        alike += int(torch.equal(frames[0], frames[1]))
    assert 1 <= min(by_frame) and 25 < max(by_frame) <= 50
    assert 1 <= min(by_feature) and 8 < max(by_feature) <= 16
    assert alike == 0
