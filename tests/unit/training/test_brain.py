"""When a checkpoint is due within an epoch."""

import time

import pytest
import torch
from speechbrain.utils.run_opts import RunOptions

from train import make_brain
from voice_biometrics.common.errors import InputError
from voice_biometrics.training.brain import SpeakerBrain


def test_a_clock_that_is_set_back_does_not_put_off_the_checkpoint(monkeypatch):
    brain = SpeakerBrain.__new__(SpeakerBrain)  # without a network
    brain.checkpointer, brain.ckpt_interval_minutes, brain.ckpt_interval_steps = object(), 5, 0
    wall_s, running_s = 1e9, 0.0
    monkeypatch.setattr(time, "time", lambda: wall_s)
    monkeypatch.setattr(time, "monotonic", lambda: running_s)
    assert not brain._should_save_intra_epoch_ckpt(wall_s, 1)
    wall_s, running_s = wall_s - 3600, 299.0
    assert not brain._should_save_intra_epoch_ckpt(1e9, 2)
    running_s = 301.0
    assert brain._should_save_intra_epoch_ckpt(1e9, 3)
    assert not brain._should_save_intra_epoch_ckpt(wall_s, 1)  # the first step after that checkpoint


def test_a_training_without_any_loss_is_refused():
    hparams = {"embedding_model": torch.nn.Identity(), "head_weight": 0, "embedding_costs": [], "modules": {}}
    with pytest.raises(InputError, match="head_weight.*embedding_costs"):
        make_brain(hparams, RunOptions(), num_classes=2)
