"""ECAPA with one part exchanged: that the part is gone, and what stands in its place."""

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, SEBlock

from voice_biometrics.models.ecapa_variants import (
    EcapaSharedAttention,
    EcapaTransformer,
    EcapaWithoutAggregation,
    EcapaWithoutRes2,
    EcapaWithoutSqueeze,
    MeanStdPooling,
)
from voice_biometrics.models.fast_ecapa import FastECAPA

VARIANTS = FastECAPA.__subclasses__()


def make(variant: type) -> ECAPA_TDNN:
    torch.manual_seed(0)
    options = {} if variant is EcapaWithoutRes2 else {"res2net_scale": 2}
    return variant(6, channels=[8, 8, 8, 8, 12], lin_neurons=5, attention_channels=4, se_channels=4, **options)


def frames(num_frames: int = 30) -> torch.Tensor:
    return torch.randn(3, num_frames, 6, generator=torch.Generator().manual_seed(1))


def test_each_variant_gives_an_embedding_an_utterance_and_trains_all_of_its_weights():
    assert len(VARIANTS) == 6
    for variant in VARIANTS:
        network = make(variant)
        embeddings = network(frames(), torch.ones(3))
        assert embeddings.shape == (3, 1, 5), variant
        embeddings.square().sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters()), variant


def test_padding_is_masked_in_the_pooling():
    inside = torch.randn(2, 12, 20, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([inside, torch.full((2, 12, 10), 9.0)], dim=2)
    for variant in VARIANTS:
        pooling = make(variant).eval().asp
        with torch.inference_mode():
            alone, masked = pooling(inside), pooling(padded, lengths=torch.full((2,), 20 / 30))
            assert torch.allclose(alone, masked, atol=1e-5), variant
            assert not torch.allclose(alone, pooling(padded), atol=1e-2), variant


def test_no_squeeze_and_excitation_is_left():
    assert not any(isinstance(module, SEBlock) for module in make(EcapaWithoutSqueeze).modules())
    assert sum(isinstance(module, SEBlock) for module in make(EcapaWithoutRes2).modules()) == 3


def test_a_plain_convolution_of_the_same_reach_stands_in_place_of_res2():
    network = make(EcapaWithoutRes2)
    for block, dilation in zip(network.blocks[1:], (2, 3, 4), strict=True):
        convolution = block.res2net_block.conv.conv
        assert (convolution.kernel_size, convolution.dilation) == ((3,), (dilation,))
        assert (convolution.in_channels, convolution.out_channels, convolution.groups) == (8, 8, 1)


def test_only_the_last_block_is_aggregated():
    layer = make(EcapaWithoutAggregation).mfa.eval()
    joined = torch.randn(2, 24, 7)
    before = layer(joined)
    joined[:, :16] = 0.0
    assert torch.equal(layer(joined), before)
    joined[:, 16:] += 1.0
    assert not torch.allclose(layer(joined), before)


def test_mean_and_deviation_match_hand_computed_numbers():
    x = torch.tensor([[[1.0, 3.0, 5.0, 7.0]], [[2.0, 4.0, 9.0, 9.0]]])
    pooled = MeanStdPooling()(x, torch.tensor([1.0, 0.5]))
    assert pooled.shape == (2, 2, 1)
    assert pooled.flatten().tolist() == pytest.approx([4.0, 5**0.5, 3.0, 1.0])


def test_equal_channels_are_pooled_alike_where_they_share_their_attention():
    for variant, alike in ((EcapaSharedAttention, True), (ECAPA_TDNN, False)):
        pooling = make(variant).asp
        x = torch.randn(1, 1, 9, generator=torch.Generator().manual_seed(0)).expand(1, 12, 9)
        means = pooling(x)[0, :12, 0]
        assert torch.allclose(means, means[0].expand(12), atol=1e-6) == alike


def test_the_transformer_layer_sees_all_frames_and_no_positions():
    pooling = make(EcapaTransformer).asp.eval()
    x = torch.randn(1, 12, 9, generator=torch.Generator().manual_seed(0))
    shuffled = x[:, :, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert torch.allclose(pooling(x), pooling(shuffled), atol=1e-5)
    changed = x.clone()
    changed[:, :6, 8] += 3.0
    first = [pooling.layer(frames.transpose(1, 2))[0, 0] for frames in (x, changed)]
    assert not torch.allclose(*first, atol=1e-3)
