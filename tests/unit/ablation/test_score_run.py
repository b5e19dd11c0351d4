"""Parameters and multiply-accumulates against hand-computed numbers."""

import torch
from torch import nn

from voice_biometrics.ablation.score_run import count_macs, count_parameters, describe_hardware, time_inference

FRAMES = 301  # in 3 s with a hop of 160 samples


class Frames(nn.Module):
    """(utterances, samples) -> (utterances, frames, 80)."""

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return waves[:, :1, None].expand(-1, 1 + waves.shape[1] // 160, 80)


class Unchanged(nn.Module):
    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return features


class Network(nn.Module):
    """Apply ``layer`` to (utterances, frames, 80), or to its transpose, and average over frames."""

    def __init__(self, layer: nn.Module, transposed: bool) -> None:
        super().__init__()
        self.layer, self.transposed = layer, transposed

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        made = self.layer(features.transpose(1, 2)).transpose(1, 2) if self.transposed else self.layer(features)
        return made.mean(dim=1, keepdim=True)


def modules(layer: nn.Module, transposed: bool = False) -> nn.ModuleDict:
    parts = {"compute_features": Frames(), "mean_var_norm": Unchanged()}
    return nn.ModuleDict({**parts, "embedding_model": Network(layer, transposed)})


def test_macs_of_one_layer():
    for layer, transposed, macs_per_frame in (
        (nn.Conv1d(80, 16, kernel_size=5, padding=2), True, 16 * 80 * 5),
        (nn.Conv1d(80, 16, kernel_size=5, padding=2, groups=4), True, 16 * 20 * 5),
        (nn.Linear(80, 7), False, 80 * 7),
        (
            nn.TransformerEncoderLayer(80, nhead=4, dim_feedforward=32, batch_first=True),
            False,
            4 * 80 * 80 + 2 * 80 * FRAMES + 2 * 80 * 32,  # projections, attention, feed-forward
        ),
    ):
        assert count_macs(modules(layer, transposed), 16000) == FRAMES * macs_per_frame
        assert torch.backends.mha.get_fastpath_enabled()


def test_trainable_parameters_are_counted():
    layer = nn.Sequential(nn.Conv1d(80, 16, 5), nn.BatchNorm1d(16))
    assert count_parameters([layer, nn.Linear(16, 3)]) == 80 * 16 * 5 + 16 + 2 * 16 + 16 * 3 + 3


def test_inference_is_timed_on_one_thread_and_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert 0.0 < time_inference(modules(nn.Linear(80, 7)), 16000) < 5.0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert describe_hardware("cpu", 2).endswith(", 2 threads") and len(describe_hardware("cpu", 1)) > len(", 1 thread")
