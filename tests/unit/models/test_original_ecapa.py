"""Tests of voice_biometrics.models.original_ecapa."""

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier

from voice_biometrics.models.original_ecapa import (
    MIN_VARIANCE,
    AttentivePooling,
    OriginalEcapa,
    Res2Part,
    SqueezePart,
    weighted_mean_std,
)


@pytest.fixture
def model() -> OriginalEcapa:
    torch.manual_seed(0)
    return OriginalEcapa()


@pytest.fixture
def feats() -> torch.Tensor:
    """Three utterances of 60 frames, each around a mean of its own."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 60, 80, generator=generator) + torch.randn(3, 1, 80, generator=generator)


def count_trainable(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_the_network_and_its_head_have_exactly_the_original_number_of_parameters(model):
    head = Classifier(192, out_neurons=1211)
    assert count_trainable(model) == 1_096_527
    assert count_trainable(model) + count_trainable(head) == 1_329_039


def test_any_number_of_frames_gives_one_embedding_an_utterance_of_the_chosen_size(model):
    for num_frames in (1, 2, 61):
        assert model(torch.randn(2, num_frames, 80)).shape == (2, 1, 192)
    assert OriginalEcapa(input_size=40, lin_neurons=64)(torch.randn(2, 30, 40)).shape == (2, 1, 64)


def test_every_part_before_the_pooling_keeps_the_number_of_frames(model):
    frames = model.front(torch.randn(2, 80, 37))
    assert frames.shape == (2, 80, 37)
    for block in model.blocks:
        frames = block(frames)
        assert frames.shape == (2, 80, 37)


def test_features_of_a_wrong_shape_are_an_error_that_tells_it(model):
    for shape in ((60, 80), (2, 60, 79), (2, 80, 60), (2, 0, 80)):
        with pytest.raises(ValueError, match=r"expected \(batch, frames, 80\), found \(" + str(shape[0])):
            model(torch.zeros(shape))


def test_an_embedding_is_the_same_alone_and_in_a_batch_of_equal_lengths(model, feats):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 1.0  # one pass settles the statistics; until then embeddings hardly differ
    model(feats)
    model.eval()
    together = model(feats)
    alone = torch.cat([model(utterance.unsqueeze(0)) for utterance in feats])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-3)
    assert (together[0] - together[1]).abs().max() > 1.0


def test_lengths_are_ignored(model, feats):
    model.eval()
    assert torch.equal(model(feats), model(feats, torch.tensor([1.0, 0.5, 0.2])))


def test_silent_constant_and_random_features_give_finite_gradients(model, feats):
    for batch in (torch.zeros(3, 60, 80), torch.full((3, 60, 80), 5.0), feats, feats[:, :1]):
        batch = batch.clone().requires_grad_()
        model.zero_grad()
        model(batch).pow(3).sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None] + [batch.grad]
        assert len(gradients) > 50
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_only_the_fourth_res2_convolutions_receive_no_gradient(model, feats):
    model(feats).pow(3).sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    unused = {name for name, _ in model.named_parameters() if ".group_convs.3." in name}
    assert len(unused) == 9  # three blocks: a convolution's weight, its batch norm's weight and bias
    assert without == unused


def test_res2_passes_the_first_group_and_adds_each_group_to_the_next():
    part = Res2Part().eval()
    part.narrow, part.widen = torch.nn.Identity(), torch.nn.Identity()
    part.group_convs = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    frames = torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1)
    outputs = part(frames) - frames
    assert outputs.flatten().tolist() == [1.0, 11.0, 111.0, 1111.0]


def test_a_half_open_gate_gives_one_and_a_half_times_the_widened_frames():
    part = SqueezePart().eval()
    part.widen = torch.nn.Identity()
    torch.nn.init.zeros_(part.gate[2].weight)
    torch.nn.init.zeros_(part.gate[2].bias)  # sigmoid(0) = 0.5 for every channel
    frames = torch.randn(2, 160, 5)
    torch.testing.assert_close(part(frames), 1.5 * frames)


def test_each_block_reads_the_one_before_and_all_three_outputs_are_joined(model):
    class Triple(torch.nn.Module):
        def forward(self, frames):
            return 3 * frames

    joined = []
    model.front = torch.nn.Identity()
    model.blocks = torch.nn.ModuleList([Triple(), Triple(), Triple()])
    model.join.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    model(torch.ones(2, 4, 80))
    assert joined[0].shape == (2, 240, 4)
    assert joined[0][0, ::80, 0].tolist() == [3.0, 9.0, 27.0]


def test_weighted_mean_and_std_match_hand_computed_numbers():
    frames = torch.tensor([[[1.0, 3.0, 5.0], [2.0, 2.0, 8.0]]])
    weights = torch.tensor([[[0.5, 0.25, 0.25]]])
    # Means 2.5 and 3.5; variances 0.5*2.25 + 0.25*0.25 + 0.25*6.25 = 2.75 and 0.75*2.25 + 0.25*20.25 = 6.75.
    expected = torch.tensor([[2.5, 3.5, 2.75**0.5, 6.75**0.5]])
    torch.testing.assert_close(weighted_mean_std(frames, weights), expected)


def test_uniform_attention_pools_the_plain_mean_and_standard_deviation():
    pooling = AttentivePooling(channels=4, attention_neurons=6)
    torch.nn.init.zeros_(pooling.score[2].weight)
    frames = torch.randn(2, 4, 9)
    expected = torch.cat([frames.mean(dim=2), frames.std(dim=2, correction=0)], dim=1)
    torch.testing.assert_close(pooling(frames), expected)


def test_attention_pools_the_frame_that_it_scores_far_above_the_others():
    pooling = AttentivePooling(channels=1, attention_neurons=1)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.zero_()
        pooling.score[0].weight[0, 0] = 1.0  # score of a frame = 100 * its own value
        pooling.score[2].weight[0, 0] = 100.0
    mean, std = pooling(torch.tensor([[[1.0, 2.0, 7.0]]])).flatten().tolist()
    assert mean == pytest.approx(7.0)
    assert std == pytest.approx(MIN_VARIANCE**0.5)


def test_pooling_does_not_depend_on_the_order_of_the_frames():
    pooling = AttentivePooling(channels=4, attention_neurons=6)
    frames = torch.randn(2, 4, 9)
    torch.testing.assert_close(pooling(frames), pooling(frames.flip(2)))
    assert not torch.allclose(pooling(frames), pooling(frames + 1))
