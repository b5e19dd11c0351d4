"""Losses: numbers worked out by hand, limits that equal SpeechBrain's, gradients of the right sign."""

import math

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper, nll_loss

from voice_biometrics.common.errors import InputError
from voice_biometrics.models.heads import ScaledEmbeddings, SubCentreClassifier
from voice_biometrics.training.losses import (
    AngularPrototypicalLoss,
    InterTopKMargin,
    SupervisedContrastiveLoss,
    WarmUpMargin,
    set_progress,
)

COSINES = torch.tensor([[0.5, 0.8, -0.2, 0.1], [0.3, -0.999, 0.9, 0.0]])
TARGETS = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])


def angles_of(logits: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.acos(logits / scale)


def test_without_warm_up_and_without_neighbours_it_is_speechbrains_aam():
    for margin in (WarmUpMargin(0.2, 30), InterTopKMargin(0.2, 30, top_k=0)):
        torch.testing.assert_close(margin(COSINES, TARGETS), AdditiveAngularMargin(0.2, 30)(COSINES, TARGETS))


def test_the_margin_grows_linearly_with_the_epochs_and_then_stays():
    margin = WarmUpMargin(0.3, 1.0, warm_up_epochs=4)
    found = []
    for epochs_done in (0.0, 1.0, 2.5, 4.0, 9.0):
        set_progress(LogSoftmaxWrapper(margin), epochs_done)
        angles = angles_of(margin(COSINES, TARGETS), 1.0)
        found.append(float(angles[0, 0] - torch.acos(COSINES[0, 0])))
        assert torch.allclose(angles[0, 1:], torch.acos(COSINES[0, 1:]), atol=1e-4)
        torch.testing.assert_close(
            margin(COSINES, TARGETS), AdditiveAngularMargin(margin.margin, 1.0)(COSINES, TARGETS)
        )  # also beyond cos(pi - m), where SpeechBrain goes on in a straight line
    assert found == pytest.approx([0.0, 0.075, 0.1875, 0.3, 0.3], abs=1e-5)


def test_losses_without_a_margin_need_not_be_told_the_progress():
    set_progress(nll_loss, 1.0)
    set_progress(LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30)), 1.0)


def test_the_two_nearest_other_speakers_come_nearer_by_the_margin():
    logits = InterTopKMargin(0.2, 30, top_k=2, top_k_margin=0.1)(COSINES, TARGETS)
    moved = angles_of(logits, 30) - torch.acos(COSINES)
    assert moved[0].tolist() == pytest.approx([0.2, -0.1, 0.0, -0.1], abs=1e-4)
    assert moved[1, [0, 2, 3]].tolist() == pytest.approx([-0.1, -0.1, 0.0], abs=1e-4)


def test_the_target_is_never_among_its_neighbours_and_few_speakers_are_all_penalised():
    cosines, targets = torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 0.0]])
    moved = angles_of(InterTopKMargin(0.2, 30, top_k=5, top_k_margin=0.1)(cosines, targets), 30) - torch.acos(cosines)
    assert moved[0].tolist() == pytest.approx([0.2, -0.1], abs=1e-4)


def test_the_loss_falls_when_the_true_cosine_grows_and_rises_with_the_others():
    for margin in (WarmUpMargin(0.2, 30, warm_up_epochs=3), InterTopKMargin(0.2, 30, top_k=2)):
        cosines = COSINES.clone().requires_grad_()
        LogSoftmaxWrapper(margin)(cosines.unsqueeze(1), torch.tensor([[0], [1]])).backward()
        assert (cosines.grad[TARGETS == 1] < 0).all() and (cosines.grad[TARGETS == 0] > 0).all()


def test_margins_have_the_gradient_of_finite_differences():
    margin = InterTopKMargin(0.2, 1.0, top_k=1)
    cosines = COSINES[:1].clone().requires_grad_()
    margin(cosines, TARGETS[:1]).sum().backward()
    for column in range(4):
        step = torch.zeros_like(cosines)
        step[0, column] = 1e-2
        rise = margin(cosines + step, TARGETS[:1]).sum() - margin(cosines - step, TARGETS[:1]).sum()
        assert cosines.grad[0, column].item() == pytest.approx(rise.item() / 2e-2, rel=1e-3)


def test_one_centre_is_speechbrains_classifier():
    torch.manual_seed(0)
    plain, one = Classifier(6, out_neurons=5), SubCentreClassifier(6, 5, num_centres=1)
    one.load_state_dict(plain.state_dict())
    embeddings = torch.randn(3, 1, 6)
    assert torch.equal(one(embeddings), plain(embeddings))


def test_the_nearest_centre_of_a_speaker_counts_and_it_alone_learns():
    head = SubCentreClassifier(2, 2, num_centres=2)
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -3.0]])
    cosines = head(torch.tensor([[[0.6, 0.8]]]))
    assert cosines.flatten().tolist() == pytest.approx([0.8, -0.6])  # of centres 0.6, 0.8 and -0.6, -0.8
    cosines[0, 0, 0].backward()
    assert head.weight.grad[1].abs().sum() > 0 and head.weight.grad[[0, 2, 3]].abs().sum() == 0


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_the_contrastive_loss_matches_hand_computed_numbers():
    embeddings = torch.tensor([[unit(0)], [unit(90)], [unit(180)]]) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    loss = SupervisedContrastiveLoss(weight=2.0, temperature=0.5)(embeddings, torch.tensor([[7], [7], [3]]))
    # Cosines / 0.5: 0 and 90 degrees 0; 0 and 180 -2; 90 and 180 0. Anchors are the first two; the third has no mate.
    first = -math.log(1 / (1 + math.exp(-2)))
    second = -math.log(1 / (1 + 1))
    assert loss.item() == pytest.approx(2.0 * (first + second) / 2, rel=1e-5)


def test_the_contrastive_loss_of_a_batch_without_mates_is_zero_with_a_gradient():
    embeddings = torch.randn(3, 1, 4, requires_grad=True)
    loss = SupervisedContrastiveLoss()(embeddings, torch.tensor([[0], [1], [2]]))
    loss.backward()
    assert loss.item() == 0.0 and embeddings.grad.abs().sum() == 0


def test_several_mates_of_an_anchor_are_averaged():
    embeddings = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(0))
    speakers = torch.tensor([[0], [0], [0], [1], [1]])
    vectors = torch.nn.functional.normalize(embeddings.squeeze(1), dim=1)
    by_anchor = []
    for i in range(5):
        shares = {j: math.exp(float(vectors[i] @ vectors[j]) / 0.1) for j in range(5) if j != i}
        mates = [j for j in shares if speakers[j] == speakers[i]]
        by_anchor.append(-sum(math.log(shares[j] / sum(shares.values())) for j in mates) / len(mates))
    found = SupervisedContrastiveLoss()(embeddings, speakers).item()
    assert found == pytest.approx(sum(by_anchor) / 5, rel=1e-5)


def test_the_prototypical_loss_matches_hand_computed_numbers_in_any_order():
    outputs = 4.0 * torch.tensor([[unit(0)], [unit(90)], [unit(60)], [unit(90)]])
    speakers = torch.tensor([[5], [9], [5], [9]])
    # Prototypes at 0 and 90 degrees; queries at 60 (speaker 5) and 90 (speaker 9).
    cosines = [[0.5, math.sqrt(0.75)], [0.0, 1.0]]
    expected = [
        -math.log(math.exp(4 * row[true]) / sum(math.exp(4 * value) for value in row))
        for true, row in enumerate(cosines)
    ]
    loss = AngularPrototypicalLoss()
    assert loss(outputs, speakers).item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    order = [1, 3, 0, 2]
    assert loss(outputs[order], speakers[order]).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_the_mean_of_several_utterances_is_the_prototype():
    outputs = torch.tensor([[unit(0)], [unit(60)], [unit(30)], [unit(180)], [unit(240)], [unit(210)]])
    speakers = torch.tensor([[0], [0], [0], [1], [1], [1]])
    expected = -math.log(math.exp(1) / (math.exp(1) + math.exp(-1)))  # each query lies on its prototype
    assert AngularPrototypicalLoss()(outputs, speakers).item() == pytest.approx(expected, rel=1e-5)


def test_unequal_or_single_utterances_are_refused():
    for speakers in ([0, 0, 1], [0, 1, 2]):
        with pytest.raises(InputError, match="utterances_per_speaker"):
            AngularPrototypicalLoss()(torch.randn(3, 1, 4), torch.tensor(speakers)[:, None])


def test_losses_of_embeddings_fall_when_a_step_is_taken_down_their_gradient():
    speakers = torch.arange(4).repeat(2)[:, None]
    for loss in (SupervisedContrastiveLoss(), AngularPrototypicalLoss()):
        embeddings = torch.randn(8, 1, 5, generator=torch.Generator().manual_seed(3), requires_grad=True)
        before = loss(embeddings, speakers)
        before.backward()
        after = loss(embeddings.detach() - 0.1 * embeddings.grad, speakers)
        assert after.item() < before.item() - 1e-4


def test_scaled_embeddings_have_the_learned_length():
    head = ScaledEmbeddings(10.0)
    outputs = head(torch.randn(3, 1, 4))
    assert outputs.norm(dim=2).flatten().tolist() == pytest.approx([10.0] * 3, rel=1e-5)
    assert sum(parameter.numel() for parameter in head.parameters()) == 1


def test_negative_settings_are_refused():
    for margin, settings in ((WarmUpMargin, {"warm_up_epochs": -1}), (InterTopKMargin, {"top_k": -1})):
        with pytest.raises(InputError, match="expected 0 or more"):
            margin(**settings)
