"""Warm-up, a constant stretch and decay of the learning rate."""

import pytest
import torch

from voice_biometrics.common.errors import InputError
from voice_biometrics.training.optimisation import warm_up_stable_decay


def rates(number_of_epochs: float, num_steps: int) -> list[float]:
    """Return the learning rate before each of so many steps, ten an epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = warm_up_stable_decay(optimizer, 10, number_of_epochs, warm_up_epochs=0.5, decay_epochs=1)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_it_rises_stays_and_falls():
    found = rates(3, 31)
    assert found[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found[5:21] == pytest.approx([0.5] * 16)
    assert found[20:] == pytest.approx([0.5 * (1 - (step / 10) ** 0.5) for step in range(11)])
    assert found[-1] == pytest.approx(0, abs=1e-12)


def test_a_longer_training_begins_alike():
    assert rates(3, 20) == rates(5, 20)


def test_a_training_too_short_for_both_shortens_both():
    found = rates(0.75, 9)  # 2.5 steps up, 5 down
    assert found[:3] == pytest.approx([0.2, 0.4, 0.5 * (1 - 0.0)])
    assert found[3:8] == pytest.approx([0.5 * (1 - (step / 5) ** 0.5) for step in (0.5, 1.5, 2.5, 3.5, 4.5)])


def test_a_negative_warm_up_is_refused():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    with pytest.raises(InputError, match="0 or more"):
        warm_up_stable_decay(optimizer, 10, 5, warm_up_epochs=-1, decay_epochs=1)
