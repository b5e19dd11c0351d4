"""ECAPA-TDNN behind two-dimensional convolutions: its start, its reach, and what it computes."""

import pytest
import torch
from torch import nn

from voice_biometrics.models.cnn_ecapa import CnnECAPA, MelStem
from voice_biometrics.models.fast_ecapa import FastECAPA

TINY = dict(channels=[16] * 4 + [24], attention_channels=8, lin_neurons=12, se_channels=8, res2net_scale=4)


def make(**options) -> CnnECAPA:
    torch.manual_seed(0)
    return CnnECAPA(20, **TINY, stem_channels=[4, 6], **options)


def mfcc(num_frames: int = 40) -> torch.Tensor:
    return torch.randn(3, num_frames, 20, generator=torch.Generator().manual_seed(1))


def test_before_training_it_is_the_ecapa_tdnn_of_its_weights():
    network = make().eval()
    plain = FastECAPA(20, **TINY).eval()
    plain.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if "stem." not in name})
    torch.testing.assert_close(network(mfcc()), plain(mfcc()))
    nn.init.normal_(network.stem.to_mels.weight)
    assert torch.cosine_similarity(network(mfcc()), plain(mfcc()), dim=2).max() < 0.99


def test_all_of_its_weights_are_trained():
    network = make()
    nn.init.normal_(network.stem.to_mels.weight)
    network(mfcc(), torch.ones(3)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.stem.parameters())


def test_the_convolutions_see_log_mels_and_find_a_pattern_at_any_height():
    stem = MelStem(16, [4]).eval()
    patterns = torch.zeros(2, 30, 16)
    patterns[0, 12:15, 4:7] = patterns[1, 12:15, 8:11] = torch.rand(3, 3)
    with torch.inference_mode():
        low, high = stem.layers(patterns.unsqueeze(1))  # (channels, frames, frequencies)
    torch.testing.assert_close(low[:, :, 0:6], high[:, :, 2:8])
    assert low.std() > 0.01


def test_padded_batches_and_whole_ones_agree_where_nothing_is_padded():
    network = make().eval()
    nn.init.normal_(network.stem.to_mels.weight)
    with torch.inference_mode():
        alone = network(mfcc())
        beside_a_shorter_one = network(mfcc(), torch.tensor([1.0, 0.5, 1.0]))
    torch.testing.assert_close(beside_a_shorter_one[[0, 2]], alone[[0, 2]], rtol=1e-3, atol=1e-3)


def test_bf16_gives_nearly_the_same():
    network = make().eval()
    nn.init.normal_(network.stem.to_mels.weight, std=0.1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = network(mfcc()).float()
    assert torch.cosine_similarity(rounded, network(mfcc()), dim=2).min() > 0.999


@pytest.mark.parametrize(("num_mels", "channels"), [(80, [16, 32, 64]), (15, [3]), (7, [2, 2, 2])])
def test_any_number_of_mels_and_convolutions(num_mels, channels):
    assert MelStem(num_mels, channels)(torch.randn(2, 9, num_mels)).shape == (2, 9, num_mels)
