"""The fast ECAPA-TDNN gives what SpeechBrain's gives, and keeps its parameters."""

import copy
import functools

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import Tensor, nn

from voice_biometrics.models import ecapa_variants
from voice_biometrics.models.fast_ecapa import FastECAPA, PlainStatistics, ReflectedSum, WeightedStatistics

SMALL = dict(channels=[168] * 4 + [504], attention_channels=128, lin_neurons=192, res2net_scale=4, se_channels=96)
TINY_WITHOUT_SCALE = dict(channels=[16] * 4 + [24], attention_channels=8, lin_neurons=12, se_channels=8)
TINY = TINY_WITHOUT_SCALE | {"res2net_scale": 4}


def pair(network: type[FastECAPA] = FastECAPA, **options) -> tuple[ECAPA_TDNN, FastECAPA]:
    """A network, or a variant of it, computed by SpeechBrain and by us, both in training mode with the same weights."""
    torch.manual_seed(0)
    plain = network(80, **options)
    fast = copy.deepcopy(plain)
    plain.__class__ = ECAPA_TDNN
    return plain, fast


def features(num_utterances: int = 6, num_frames: int = 61) -> Tensor:
    return torch.randn(num_utterances, num_frames, 80, generator=torch.Generator().manual_seed(1))


def cosine(first: Tensor, second: Tensor) -> float:
    """The cosine of all values of both tensors."""
    return torch.cosine_similarity(first.flatten().double(), second.flatten().double(), dim=0).item()


def learn(network: nn.Module, waves: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings, and all gradients in a row of a loss that weighs each dimension of them differently."""
    embeddings = network(waves, lengths)
    weights = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2))
    (embeddings.float() * weights).sum().backward()
    return embeddings.detach(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        SMALL,
        TINY,
        TINY | {"global_context": False},
        TINY | {"activation": nn.Tanh, "groups": [1, 2, 2, 2, 1]},
        TINY | {"channels": [16, 24, 24, 24, 24]},
    ],
    ids=["ecapa_small", "tiny", "no context", "tanh and groups", "shortcuts"],
)
def test_embeddings_and_gradients_are_those_of_speechbrain(options):
    plain, fast = pair(**options)
    (expected, expected_gradient), (found, gradient) = (learn(net, features(), torch.ones(6)) for net in (plain, fast))
    assert torch.cosine_similarity(expected, found, dim=2).min() > 0.99999
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert cosine(expected_gradient, gradient) > 0.9999
    assert gradient.norm() == pytest.approx(expected_gradient.norm().item(), rel=1e-3)


def test_a_network_with_an_exchanged_part_gives_what_it_gave():
    variants = FastECAPA.__subclasses__()
    assert len(variants) == 6
    for network in variants:
        options = TINY if network is not ecapa_variants.EcapaWithoutRes2 else TINY_WITHOUT_SCALE
        plain, fast = pair(network, **options)
        (expected, expected_gradient), (found, gradient) = (learn(net, features()) for net in (plain, fast))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert cosine(expected_gradient, gradient) > 0.9999, network


def test_training_leaves_the_same_weights_and_running_statistics():
    plain, fast = pair(**TINY)
    for network in (plain, fast):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.001)
        for step in range(3):
            optimizer.zero_grad()
            learn(network, features(4, 40 + step))
            optimizer.step()
    expected, found = plain.state_dict(), fast.state_dict()
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert found["mfa.norm.norm.num_batches_tracked"] == 3


def test_gradients_have_the_strides_of_their_parameters_as_several_processes_need():
    _, fast = pair(**TINY)
    learn(fast, features())
    strides = [(weights.grad.stride(), weights.stride()) for weights in fast.parameters()]
    assert strides and all(found == expected for found, expected in strides)


def test_a_trained_network_embeds_the_same_in_evaluation():
    plain, fast = pair(**TINY)
    learn(plain, features())
    fast.load_state_dict(plain.state_dict())
    plain.eval(), fast.eval()
    with torch.inference_mode():
        for num_frames in (5, 50, 333):
            expected, found = plain(features(1, num_frames)), fast(features(1, num_frames))
            assert torch.cosine_similarity(expected, found, dim=2).item() > 0.99999


def test_in_bf16_it_is_as_near_to_fp32_as_speechbrain():
    plain, fast = pair(**SMALL)
    expected, expected_gradient = learn(copy.deepcopy(plain), features())
    with torch.autocast("cpu", torch.bfloat16):
        (near, near_gradient), (found, gradient) = (learn(network, features()) for network in (plain, fast))
    assert cosine(expected, found) > min(0.999, cosine(expected, near.float()) - 0.0005)
    assert cosine(expected_gradient, gradient) > cosine(expected_gradient, near_gradient) - 0.01


def test_a_batch_with_padding_is_masked_as_by_speechbrain():
    plain, fast = pair(**TINY)
    lengths = torch.tensor([1.0, 0.5, 0.8])
    torch.testing.assert_close(fast(features(3), lengths), plain(features(3), lengths))


def test_too_few_frames_to_reflect_are_refused_as_by_speechbrain():
    plain, fast = pair(**TINY)
    for network in (plain, fast):
        with pytest.raises(RuntimeError, match="[Pp]adding"):
            network(features(2, 4))


def test_dropout_drops_whole_channels_in_training_only():
    _, fast = pair(**TINY, dropout=0.5)
    learn(fast, features())
    assert not torch.equal(fast(features()), fast(features()))
    fast.eval()
    assert torch.equal(fast(features()), fast(features()))


def test_weights_drawn_from_a_seed_are_those_of_speechbrain():
    torch.manual_seed(3)
    expected = ECAPA_TDNN(80, **TINY).state_dict()
    torch.manual_seed(3)
    found = FastECAPA(80, **TINY).state_dict()
    assert list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def frames(seed: int) -> Tensor:
    """(2, 3, 1, 7) in double precision, channels last, that needs a gradient."""
    values = torch.randn(2, 1, 7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return values.permute(0, 3, 1, 2).requires_grad_()


def agrees(function, reference, *inputs: Tensor) -> None:
    """Compare results and gradients of two functions."""
    expected, found = reference(*inputs), function(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    for one, other in zip(torch.autograd.grad((found * weights).sum(), inputs), expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def statistics(values: Tensor, weights: Tensor) -> Tensor:
    mean = (weights * values).sum(3, keepdim=True)
    variance = (weights * (values - mean) ** 2).sum(3, keepdim=True)
    return torch.cat([mean, variance.clamp(1e-12).sqrt()], dim=1).flatten(1)


def test_weighted_statistics_and_their_gradients_are_right():
    agrees(
        lambda x, scores: WeightedStatistics.apply(x, scores, 1e-12),
        lambda x, scores: statistics(x, scores.softmax(3)),
        frames(1),
        frames(2),
    )


def test_plain_statistics_and_their_gradients_are_right():
    agrees(lambda x: PlainStatistics.apply(x, 1e-12), lambda x: statistics(x, torch.full_like(x, 1 / 7)), frames(1))


def test_a_channel_that_never_changes_has_a_small_deviation_and_finite_gradients():
    still = torch.ones(1, 3, 1, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    for found in (PlainStatistics.apply(still, 1e-12), WeightedStatistics.apply(still, still, 1e-12)):
        assert found[:, 3:].max().item() == pytest.approx(1e-6, rel=0.01)
        assert torch.isfinite(torch.autograd.grad(found.sum(), still)[0]).all()


def test_a_reflected_sum_and_its_gradient_are_right():
    def reference(num_frames: int, *tensors: Tensor) -> Tensor:
        return nn.functional.pad(sum(tensors), (num_frames, num_frames, 0, 0), mode="reflect")

    for number in (1, 2, 6):
        expected = functools.partial(reference, number)
        agrees(lambda x, number=number: ReflectedSum.apply(x, None, number), expected, frames(1))
        agrees(lambda x, y, number=number: ReflectedSum.apply(x, y, number), expected, frames(1), frames(2))
