"""The network of the student project that this recipe follows: a small ECAPA-TDNN without dilation.

It has 1,096,527 trainable parameters, and 1,329,039 with a bias-free cosine head for 1211 speakers. The original's
description leaves points open, and the plainest reading meets that count exactly: every layer has a bias except the
convolutions said to have none; every batch normalisation is affine; all four Res2 convolutions, the unused one too,
have their own batch normalisation; the 1x1 convolutions and the SE layers have none. Other points cost no parameter,
so the count cannot settle them, and the description is read to the letter: the Res2 1x1 convolutions have no
activation; the second Res2 group adds the first to itself, which the paper does not; blocks are chained without a
skip around them; deviations divide by the number of frames.

Source: after ECAPA-TDNN, https://arxiv.org/abs/2005.07143 and Res2Net, https://arxiv.org/abs/1904.01169
"""

import torch
from torch import Tensor, nn

CHANNELS = 80
WIDE_CHANNELS = 160
NUM_RES2_GROUPS = 4
SE_CHANNELS = 10
NUM_BLOCKS = 3
ATTENTION_NEURONS = 480
MIN_VARIANCE = 1e-6  # keeps the gradient of the square root finite, in half precision too


def weighted_mean_std(frames: Tensor, weights: Tensor) -> Tensor:
    """Return weighted means, then standard deviations (at least ``sqrt(MIN_VARIANCE)``): (batch, 2 * channels).

    ``frames`` are (batch, channels, frames); ``weights`` (batch, 1, frames) sum to one over the frames.

    Source: weighted statistics of https://arxiv.org/abs/1803.10963, equations 5 and 6, with the variance taken around
    the mean so that rounding cannot make it negative.
    """
    mean = (weights * frames).sum(dim=2, keepdim=True)  # (batch, channels, 1)
    variance = (weights * (frames - mean) ** 2).sum(dim=2)  # (batch, channels)
    return torch.cat([mean.squeeze(2), variance.clamp(min=MIN_VARIANCE).sqrt()], dim=1)  # (batch, 2 * channels)


class AttentivePooling(nn.Module):
    """Pool frames by attention with one weight per frame, shared by all channels.

    The weight of a frame is scored on the frame joined with the plain mean and deviation of its utterance.
    """

    def __init__(self, channels: int, attention_neurons: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Linear(3 * channels, attention_neurons), nn.ReLU(), nn.Linear(attention_neurons, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Turn (batch, channels, frames) into (batch, 2 * channels): weighted means, then deviations."""
        num_frames = frames.shape[2]
        uniform = torch.ones_like(frames[:, :1]) / num_frames
        context = weighted_mean_std(frames, uniform).unsqueeze(2).expand(-1, -1, num_frames)
        scored = torch.cat([frames, context], dim=1).transpose(1, 2)  # (batch, frames, 3 * channels)
        weights = torch.softmax(self.score(scored).transpose(1, 2), dim=2)  # (batch, 1, frames)
        return weighted_mean_std(frames, weights)


class Res2Part(nn.Module):
    """Res2 convolutions over four groups of channels, between 1x1 convolutions and under a residual connection.

    The first group is passed on as it is, so the fourth convolution is never used: it counts among the parameters and
    receives no gradient (``DistributedDataParallel`` needs ``find_unused_parameters``).
    """

    def __init__(self) -> None:
        super().__init__()
        group_channels = CHANNELS // NUM_RES2_GROUPS
        self.narrow = nn.Conv1d(WIDE_CHANNELS, CHANNELS, kernel_size=1)
        self.group_convs = nn.ModuleList(
            conv_bn_relu(group_channels, group_channels, bias=False) for _ in range(NUM_RES2_GROUPS)
        )
        self.widen = nn.Conv1d(CHANNELS, WIDE_CHANNELS, kernel_size=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Keep the shape (batch, WIDE_CHANNELS, frames)."""
        first, *later = self.narrow(frames).chunk(NUM_RES2_GROUPS, dim=1)
        outputs = [first]
        for group, conv in zip(later, self.group_convs, strict=False):
            outputs.append(conv(group + outputs[-1]))
        return frames + self.widen(torch.cat(outputs, dim=1))


class SqueezePart(nn.Module):
    """A widening convolution, then squeeze-and-excitation whose scaled output is added to the unscaled one."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = conv_bn_relu(CHANNELS, WIDE_CHANNELS, bias=False)
        self.gate = nn.Sequential(
            nn.Linear(WIDE_CHANNELS, SE_CHANNELS), nn.ReLU(), nn.Linear(SE_CHANNELS, WIDE_CHANNELS), nn.Sigmoid()
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Turn (batch, CHANNELS, frames) into (batch, WIDE_CHANNELS, frames)."""
        wide = self.widen(frames)
        scale = self.gate(wide.mean(dim=2)).unsqueeze(2)  # (batch, WIDE_CHANNELS, 1)
        return wide * scale + wide


def conv_bn_relu(in_channels: int, out_channels: int, bias: bool = True) -> nn.Sequential:
    """A convolution over three frames that keeps their number, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm1d(out_channels),
        nn.ReLU(),
    )


def make_block() -> nn.Sequential:
    """One of the equal blocks: (batch, CHANNELS, frames) in and out."""
    return nn.Sequential(
        conv_bn_relu(CHANNELS, WIDE_CHANNELS),
        Res2Part(),
        conv_bn_relu(WIDE_CHANNELS, CHANNELS),
        SqueezePart(),
        conv_bn_relu(WIDE_CHANNELS, CHANNELS),
    )


class OriginalEcapa(nn.Module):
    """Features of an utterance to its embedding, called like SpeechBrain's ``ECAPA_TDNN``."""

    def __init__(self, input_size: int = 80, lin_neurons: int = 192) -> None:
        super().__init__()
        self.input_size = input_size
        joined_channels = NUM_BLOCKS * CHANNELS
        self.front = nn.Sequential(
            nn.Conv1d(input_size, CHANNELS, kernel_size=5, padding=2), nn.ReLU(), nn.BatchNorm1d(CHANNELS)
        )
        self.blocks = nn.ModuleList(make_block() for _ in range(NUM_BLOCKS))
        self.join = nn.Sequential(nn.Conv1d(joined_channels, joined_channels, kernel_size=1), nn.ReLU())
        self.pooling = AttentivePooling(joined_channels, ATTENTION_NEURONS)
        self.embed = nn.Sequential(nn.Linear(2 * joined_channels, lin_neurons), nn.BatchNorm1d(lin_neurons))

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features (batch, frames, input_size): (batch, 1, lin_neurons).

        ``lengths`` is accepted for SpeechBrain's sake and ignored. The original pooled the zero padding of a batch with
        the speech, and so does this; give it batches of equal lengths and no embedding depends on its neighbours.
        Raises ValueError for features of another shape, or without a frame.
        """
        if feats.dim() != 3 or feats.shape[1] < 1 or feats.shape[2] != self.input_size:
            raise ValueError(f"features: expected (batch, frames, {self.input_size}), found {tuple(feats.shape)}")
        frames = self.front(feats.transpose(1, 2))  # (batch, CHANNELS, frames)
        outputs = []
        for block in self.blocks:
            frames = block(frames)
            outputs.append(frames)
        joined = self.join(torch.cat(outputs, dim=1))  # (batch, 3 * CHANNELS, frames)
        return self.embed(self.pooling(joined)).unsqueeze(1)  # (batch, 1, lin_neurons)
