"""Mean and standard deviation over time in fp32, with the gradients written out.

Each goes through a batch by one utterance after the other: its frames in fp32 fit the cache of a core, whereas those of
a whole batch went to memory and back for each of some twenty operations.

Tensors are (utterances, channels, 1, frames) in channels-last order, in any floating precision; results are fp32.
"""

import torch
from torch import Tensor


class PlainStatistics(torch.autograd.Function):
    """Mean and deviation of each channel: (utterances, 2 * channels), the deviation at least ``sqrt(eps)``."""

    @staticmethod
    def forward(ctx, frames: Tensor, eps: float) -> Tensor:
        """Take both statistics of ``frames``."""
        mean, variance = _empty_statistics(frames)
        for row in range(len(frames)):
            values = frames[row].to(torch.float32, copy=True)  # (channels, 1, frames)
            torch.mean(values, 2, keepdim=True, out=mean[row])
            torch.mean(values.sub_(mean[row]).square_(), 2, keepdim=True, out=variance[row])
        deviation = variance.clamp(eps).sqrt()
        ctx.save_for_backward(frames, mean, _slope(variance, deviation, eps))
        return _joined(mean, deviation)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of each frame is linear in the frame."""
        frames, mean, slope = ctx.saved_tensors
        by_mean, by_deviation = _apart(gradient)
        factor = 2 * by_deviation * slope / frames.shape[3]
        constant = by_mean / frames.shape[3] - factor * mean
        return (frames * factor.to(frames.dtype)).add_(constant.to(frames.dtype)), None


class WeightedStatistics(torch.autograd.Function):
    """Mean and deviation of each channel with softmax weights over time: (utterances, 2 * channels)."""

    @staticmethod
    def forward(ctx, frames: Tensor, scores: Tensor, eps: float) -> Tensor:
        """Take both statistics of ``frames``, weighted by the softmax of ``scores``, of the same shape."""
        mean, variance = _empty_statistics(frames)
        weights = torch.empty_like(frames)
        for row in range(len(frames)):
            values = frames[row].to(torch.float32, copy=True)  # (channels, 1, frames)
            weight = scores[row].to(torch.float32, copy=True)
            weight.sub_(weight.amax(2, keepdim=True)).exp_()
            weight.mul_(weight.sum(2, keepdim=True).reciprocal_())
            weights[row] = weight
            torch.sum(weight * values, 2, keepdim=True, out=mean[row])
            values.sub_(mean[row])
            torch.sum(weight.mul_(values).mul_(values), 2, keepdim=True, out=variance[row])
        deviation = variance.clamp(eps).sqrt()
        ctx.save_for_backward(frames, weights, mean, variance, _slope(variance, deviation, eps))
        return _joined(mean, deviation)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """With d = frame - mean, gradients m of the mean and v of the variance, weight w: by frame w (m + 2 v d),
        by score w (m d + v (d^2 - variance))."""
        frames, weights, mean, variance, slope = ctx.saved_tensors
        by_mean, by_deviation = _apart(gradient)
        by_variance = by_deviation * slope
        constant = by_variance * variance
        by_frame, by_score = torch.empty_like(frames), torch.empty_like(frames)
        for row in range(len(frames)):
            distance = frames[row].to(torch.float32, copy=True).sub_(mean[row])
            weight = weights[row].float()
            bent = distance * by_variance[row]
            straight = bent + by_mean[row]
            by_frame[row] = bent.add_(straight).mul_(weight)
            by_score[row] = straight.mul_(distance).sub_(constant[row]).mul_(weight)
        return by_frame, by_score, None


def _empty_statistics(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the mean and the variance, (utterances, channels, 1, 1)."""
    shape = (*frames.shape[:2], 1, 1)
    return frames.new_empty(shape, dtype=torch.float32), frames.new_empty(shape, dtype=torch.float32)


def _slope(variance: Tensor, deviation: Tensor, eps: float) -> Tensor:
    """How the deviation grows with the variance; not at all where it was raised to its least value."""
    return (0.5 / deviation).masked_fill(variance < eps, 0.0)


def _joined(mean: Tensor, deviation: Tensor) -> Tensor:
    return torch.cat([mean, deviation], dim=1).flatten(1)  # (utterances, 2 * channels)


def _apart(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Split what ``_joined`` joined, as (utterances, channels, 1, 1) each."""
    return gradient[:, :, None, None].chunk(2, dim=1)
