"""Schedulers per epoch and per step, and the running average of the weights."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from voice_biometrics.common.errors import InputError
from voice_biometrics.training.optimisation import LearningRate, average_of_weights, processor_has_fast_bf16


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(rate: LearningRate, num_epochs: int, steps_per_epoch: int) -> list[float]:
    seen = []
    for _ in range(num_epochs):
        for _ in range(steps_per_epoch):
            seen.append(rate.scheduler.get_last_lr()[0])
            rate.scheduler.optimizer.step()
            rate.after_step()
        rate.after_epoch()
    return seen


def test_a_scheduler_of_epochs_is_stepped_once_an_epoch():
    rate = LearningRate(functools.partial(CosineAnnealingLR, T_max=2), optimizer(), steps_per_epoch=3)
    assert rates(rate, 2, 3) == pytest.approx([1.0] * 3 + [0.5] * 3)


def test_a_scheduler_that_asks_for_the_steps_of_an_epoch_is_stepped_each_step():
    make = functools.partial(OneCycleLR, max_lr=1.0, epochs=2, pct_start=0.5, anneal_strategy="linear", div_factor=10)
    seen = rates(LearningRate(make, optimizer(), steps_per_epoch=4), 2, 4)
    assert seen[:4] == pytest.approx([0.1, 0.4, 0.7, 1.0]) and seen[4:] == sorted(seen[4:], reverse=True)


def test_a_scheduler_that_refuses_its_arguments_is_told():
    with pytest.raises(InputError, match="lr_annealing: .*epochs"):
        LearningRate(functools.partial(OneCycleLR, max_lr=1.0, epochs=-2), optimizer(), 4)


def network(value: float) -> torch.nn.Module:
    made = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    set_all(made, value)
    return made


def set_all(made: torch.nn.Module, value: float) -> None:
    for tensor in made.state_dict().values():
        tensor.fill_(value)


def average(made: torch.nn.Module, num_steps: float) -> tuple[AveragedModel, Callable[[int], None]]:
    """Return an average, and a function that adds the weights of ``made`` after a step number."""
    steps = [0]
    averaged = average_of_weights(made, num_steps, lambda: steps[0])

    def after_step(steps_done: int) -> None:
        steps[0] = steps_done
        averaged.update_parameters(made)

    return averaged, after_step


def test_the_average_of_weights_and_batch_norm_statistics_matches_hand_computed_numbers():
    made = network(1.0)
    averaged, after_step = average(made, num_steps=1 / math.log(2))  # a decay of 0.5
    set_all(made, 11.0)
    after_step(1)  # a tenth of what was, for now
    first = 0.1 * 1 + 0.9 * 11
    set_all(made, 3.0)
    after_step(1000)
    found = averaged.module.state_dict()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        assert found[name].item() == pytest.approx((first + 3) / 2)
    assert found["1.num_batches_tracked"] == 3
    assert made[0].weight.item() == 3.0 and made[0].weight.requires_grad and not averaged.training


def test_an_average_over_less_than_nothing_is_refused():
    with pytest.raises(InputError, match="average_epochs"):
        average(network(1.0), num_steps=-4)


def test_the_averages_batch_norm_statistics_suit_its_weights():
    """Near those that a pass with the averaged weights would find, and nearer than the newest network's."""
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    averaged, after_step = average(made, num_steps=50)
    steps = torch.optim.SGD(made.parameters(), lr=0.1)
    for step in range(1, 400):
        data = 2 * torch.randn(64, 4) + 1
        loss = (made(data).squeeze(1) - data.sum(dim=1) - 3 * torch.randn(64)).square().mean()  # noise: weights wander
        steps.zero_grad()
        loss.backward()
        steps.step()
        after_step(step)
    data = 2 * torch.randn(20000, 4) + 1
    inside = averaged.module[0](data)
    off = (averaged.module[1].running_mean - inside.mean(dim=0)).abs() / inside.std(dim=0)
    newest = (made[1].running_mean - inside.mean(dim=0)).abs() / inside.std(dim=0)
    assert off.max() < 0.05 < newest.max()
    ratio = averaged.module[1].running_var / inside.var(dim=0)
    assert 0.9 < ratio.min() and ratio.max() < 1.1


def test_bf16_is_chosen_by_processor(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    cases = [
        ("AuthenticAMD", False, True, True),
        ("GenuineIntel", False, True, False),
        ("AuthenticAMD", False, False, False),
    ]
    for vendor, amx, avx512_bf16, expected in [*cases, ("GenuineIntel", True, True, True)]:
        info.write_text(f"vendor_id : {vendor}\n")
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx512_bf16: found)
        assert processor_has_fast_bf16(info) is expected, (vendor, amx, avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not processor_has_fast_bf16(tmp_path / "no such file")
