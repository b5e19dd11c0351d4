"""SpeechBrain's ECAPA-TDNN, computed faster on a CPU: same weights, options, state dict and results.

- Frames stay in the memory order (utterance, frame, channel), in which oneDNN's convolutions need no reordering.
- Kernels of one frame are not padded; other padding is copied once, in the precision in use.
- The mean and deviation that attention sees are constant over time, so their part of the 1x1 convolution is computed
  once per utterance.
- Statistics are computed in fp32, one utterance after the other, so that the frames fit the cache of a core; their
  gradients are written out.

Padded batches, which need masks, and GPUs use SpeechBrain's own computation. Tensors here are (utterances, channels, 1,
frames) in channels-last order, in any floating precision; statistics are fp32.
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.ECAPA_TDNN import (
    ECAPA_TDNN,
    AttentiveStatisticsPooling,
    Conv1d,
    Res2NetBlock,
    SEBlock,
    SERes2NetBlock,
    TDNNBlock,
)
from torch import Tensor, nn


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
    """Return uninitialised tensors for mean and variance, (utterances, channels, 1, 1)."""
    shape = (*frames.shape[:2], 1, 1)
    return frames.new_empty(shape, dtype=torch.float32), frames.new_empty(shape, dtype=torch.float32)


def _slope(variance: Tensor, deviation: Tensor, eps: float) -> Tensor:
    """Return the derivative of the deviation by the variance; 0 where the deviation was clamped."""
    return (0.5 / deviation).masked_fill(variance < eps, 0.0)


def _joined(mean: Tensor, deviation: Tensor) -> Tensor:
    return torch.cat([mean, deviation], dim=1).flatten(1)  # (utterances, 2 * channels)


def _apart(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Split what ``_joined`` joined, as (utterances, channels, 1, 1) each."""
    return gradient[:, :, None, None].chunk(2, dim=1)


class FastECAPA(ECAPA_TDNN):
    """``ECAPA_TDNN`` with another order of memory. Inside, frames are (utterances, channels, 1, frames)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn features (utterances, frames, features) of relative ``lengths`` into (utterances, 1, dims)."""
        traced = torch.compiler.is_compiling()  # also by the ONNX exporter
        if traced or x.device.type != "cpu" or _padded(lengths) or x.shape[1] <= self._widest_padding():
            return super().forward(x, lengths)
        frames = x.transpose(1, 2).unsqueeze(2)  # (utterances, features, 1, frames)
        outputs = []
        for block in self.blocks:
            frames = compute(block, frames)
            outputs.append(frames)
        frames = compute(self.mfa, torch.cat(outputs[1:], dim=1))
        pooled = compute(self.asp, frames).squeeze(2)  # (utterances, 2 * channels, 1)
        return self.fc(self.asp_bn(pooled)).transpose(1, 2)

    def _widest_padding(self) -> int:
        """Return the most frames that a convolution reflects; fewer frames than that raise SpeechBrain's error."""
        return max(padding(module) for module in self.modules() if isinstance(module, Conv1d))


def compute(part: nn.Module, frames: Tensor) -> Tensor:
    """Compute a part of the network, fast if it is SpeechBrain's; (utterances, channels, 1, frames) in and out."""
    fast = FAST_PARTS.get(type(part))
    return fast(part, frames) if fast else part(frames.squeeze(2)).unsqueeze(2)


def _padded(lengths: Tensor | None) -> bool:
    """Return True if an utterance is shorter than the batch."""
    return lengths is not None and not bool((lengths == 1).all())


def padding(layer: Conv1d) -> int:
    """Return the frames that a convolution reflects at each edge."""
    return layer.dilation * (layer.kernel_size - 1) // 2


def convolve(layer: Conv1d, frames: Tensor, added: Tensor | None = None) -> Tensor:
    """Convolve ``frames`` or the sum of both over time; (utterances, channels, 1, frames) in and out."""
    conv = layer.conv
    if padding(layer):
        frames = ReflectedSum.apply(frames, added, padding(layer))
    elif added is not None:
        frames = frames + added
    # Squeezed first, so that the gradient of a kernel of one frame has the strides that DDP expects.
    weight = conv.weight.squeeze(2).view(*conv.weight.shape[:2], 1, -1)  # (channels, input channels, 1, kernel)
    return F.conv2d(frames, weight, conv.bias, dilation=(1, layer.dilation), groups=conv.groups)


def tdnn(block: TDNNBlock, frames: Tensor, added: Tensor | None = None) -> Tensor:
    """Convolution, activation, batch normalisation, dropout."""
    return after_convolution(block, convolve(block.conv, frames, added))


def after_convolution(block: TDNNBlock, convolved: Tensor) -> Tensor:
    """Activation, batch normalisation and dropout of a block; ``convolved`` may be overwritten."""
    in_place = isinstance(block.activation, nn.ReLU)
    active = F.relu_(convolved) if in_place else block.activation(convolved)
    rows = active.permute(0, 2, 3, 1).reshape(-1, active.shape[1])  # (utterances * frames, channels)
    normalised = block.norm.norm(rows).view(active.shape[0], 1, active.shape[3], -1).permute(0, 3, 1, 2)
    normalised = DenseGradient.apply(normalised)
    return F.dropout2d(normalised, block.dropout.p, block.training) if block.dropout.p else normalised


def se_res2(block: SERes2NetBlock, frames: Tensor) -> Tensor:
    """A whole block, with its residual connection."""
    residual = convolve(block.shortcut, frames) if block.shortcut else frames
    frames = compute(block.res2net_block, compute(block.tdnn1, frames))
    return compute(block.se_block, compute(block.tdnn2, frames)) + residual


def res2(block: Res2NetBlock, frames: Tensor) -> Tensor:
    """Groups of channels, each but the first convolved after the result of the group before was added."""
    first, *later = torch.chunk(frames, block.scale, dim=1)
    outputs = [first]
    for number, (group, layer) in enumerate(zip(later, block.blocks, strict=True)):
        outputs.append(tdnn(layer, group, outputs[-1] if number else None))
    return torch.cat(outputs, dim=1)


def squeeze_excite(block: SEBlock, frames: Tensor) -> Tensor:
    """Scale each channel by a gate computed from the means of all channels."""
    means = MeanOverTime.apply(frames)  # (utterances, channels, 1)
    scale = block.sigmoid(block.conv2(block.relu(block.conv1(means))))
    return frames * scale.unsqueeze(3)


def pool(block: AttentiveStatisticsPooling, frames: Tensor) -> Tensor:
    """Mean and deviation of each channel over time, weighted by attention: (utterances, 2 * channels, 1, 1)."""
    layer = block.tdnn.conv.conv
    if block.global_context:
        channels = frames.shape[1]
        with torch.autocast("cpu", enabled=False):
            context = PlainStatistics.apply(frames, block.eps)
        shift = F.linear(context, layer.weight[:, channels:, 0], layer.bias)  # (utterances, attention channels)
        scored = F.conv2d(frames, layer.weight[:, :channels].unsqueeze(2)) + shift[:, :, None, None]
    else:
        scored = convolve(block.tdnn.conv, frames)
    scores = convolve(block.conv, block.tanh(after_convolution(block.tdnn, scored)))
    with torch.autocast("cpu", enabled=False):
        pooled = WeightedStatistics.apply(frames, scores.expand_as(frames), block.eps)
    return pooled[:, :, None, None]


FAST_PARTS = {
    TDNNBlock: tdnn,
    SERes2NetBlock: se_res2,
    Res2NetBlock: res2,
    SEBlock: squeeze_excite,
    AttentiveStatisticsPooling: pool,
}


class ReflectedSum(torch.autograd.Function):
    """The sum of two tensors with its edges reflected, in one copy; the second may be None."""

    @staticmethod
    def forward(ctx, first: Tensor, second: Tensor | None, num_frames: int) -> Tensor:
        """Turn (utterances, channels, 1, frames) into the same with ``num_frames`` more at each edge."""
        ctx.num_frames, ctx.is_sum = num_frames, second is not None
        utterances, channels, _, length = first.shape
        shape = (utterances, channels, 1, length + 2 * num_frames)
        padded = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last)
        middle = padded[..., num_frames:-num_frames]
        middle.copy_(first) if second is None else torch.add(first, second, out=middle)
        padded[..., :num_frames] = middle[..., 1 : num_frames + 1].flip(3)
        padded[..., -num_frames:] = middle[..., -num_frames - 1 : -1].flip(3)
        return padded

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Fold the gradient of the edges back to the frames that they mirror."""
        num_frames = ctx.num_frames
        middle = gradient[..., num_frames:-num_frames].clone(memory_format=torch.channels_last)
        middle[..., 1 : num_frames + 1] += gradient[..., :num_frames].flip(3)
        middle[..., -num_frames - 1 : -1] += gradient[..., -num_frames:].flip(3)
        return middle, middle if ctx.is_sum else None, None


class MeanOverTime(torch.autograd.Function):
    """Mean of each channel. Its gradient keeps the memory order of the frames: another is added five times slower."""

    @staticmethod
    def forward(ctx, frames: Tensor) -> Tensor:
        """Turn (utterances, channels, 1, frames) into (utterances, channels, 1)."""
        ctx.shape = frames.shape
        return frames.mean(dim=3)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """Distribute the gradient evenly over the frames."""
        share = (gradient / ctx.shape[3]).unsqueeze(3)
        return share.expand(ctx.shape).contiguous(memory_format=torch.channels_last)


class DenseGradient(torch.autograd.Function):
    """Identity with a contiguous gradient: batch normalisation takes ten times as long on a slice of channels."""

    @staticmethod
    def forward(ctx, frames: Tensor) -> Tensor:
        """Return ``frames``."""
        return frames.view_as(frames)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """Copy the gradient if it has gaps."""
        return gradient.contiguous(memory_format=torch.channels_last)
