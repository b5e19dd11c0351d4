"""ECAPA-TDNN with one part removed or replaced, for ablations that SpeechBrain's constructor has no option for.

All take the arguments of ``speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN`` and are called like it.
"""

from speechbrain.dataio.dataio import length_to_mask
from speechbrain.lobes.models.ECAPA_TDNN import Conv1d, TDNNBlock
from torch import Tensor, nn

from voice_biometrics.models.fast_ecapa import FastECAPA
from voice_biometrics.models.original_ecapa import weighted_mean_std


class EcapaWithoutSqueeze(FastECAPA):
    """Without squeeze-and-excitation."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        for block in self.blocks[1:]:
            block.se_block = PassFrames()


class EcapaWithoutRes2(FastECAPA):
    """One convolution over all channels of a block instead of Res2's chain over groups of channels.

    SpeechBrain's ``res2net_scale=1`` would omit the convolution.
    """

    def __init__(self, *args, kernel_sizes: list[int] = (5, 3, 3, 3, 1), dilations=(1, 2, 3, 4, 1), **options) -> None:
        super().__init__(*args, kernel_sizes=kernel_sizes, dilations=dilations, res2net_scale=1, **options)
        for block, kernel_size, dilation in zip(self.blocks[1:], kernel_sizes[1:], dilations[1:], strict=False):
            block.res2net_block = TDNNBlock(block.out_channels, block.out_channels, kernel_size, dilation)


class EcapaWithoutAggregation(FastECAPA):
    """Without multi-layer aggregation: only the output of the last block is pooled."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.mfa = LastBlock(self.channels[-2], self.channels[-1])


class EcapaMeanStdPooling(FastECAPA):
    """Unweighted mean and standard deviation over the frames instead of attention."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.asp = MeanStdPooling()


class EcapaSharedAttention(FastECAPA):
    """One attention weight per frame for all channels, instead of one per channel."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.asp.conv = Conv1d(in_channels=self.asp.conv.conv.in_channels, out_channels=1, kernel_size=1)


class EcapaTransformer(FastECAPA):
    """A transformer layer, without positional encoding, between the blocks and the pooling.

    It has the width of the last channels; ``feedforward`` is its hidden width.
    """

    def __init__(self, *args, num_heads: int = 4, feedforward: int = 256, **options) -> None:
        super().__init__(*args, **options)
        self.asp = TransformerPooling(self.asp, self.channels[-1], num_heads, feedforward)


class PassFrames(nn.Module):
    """Identity."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``x``, (utterances, channels, frames)."""
        return x


class LastBlock(TDNNBlock):
    """A TDNN layer on the channels of the last block among the concatenated outputs of all blocks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, dilation=1)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return (utterances, out_channels, frames) of ``x`` (utterances, blocks * in_channels, frames)."""
        return super().forward(x[:, -self.in_channels :])


class MeanStdPooling(nn.Module):
    """Mean and standard deviation of each channel over the valid frames."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return (utterances, 2 * channels, 1) of ``x`` (utterances, channels, frames), padded beyond ``lengths``."""
        weights = _valid_frames(x, lengths).unsqueeze(1).float()  # (utterances, 1, frames)
        return weighted_mean_std(x, weights / weights.sum(dim=2, keepdim=True)).unsqueeze(2)


class TransformerPooling(nn.Module):
    """A transformer layer, then ``pooling``."""

    def __init__(self, pooling: nn.Module, channels: int, num_heads: int, feedforward: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            channels, num_heads, feedforward, dropout=0.0, batch_first=True, norm_first=True
        )
        self.pooling = pooling

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool ``x`` (utterances, channels, frames), padded as in ``MeanStdPooling``."""
        padding = ~_valid_frames(x, lengths)
        x = self.layer(x.transpose(1, 2), src_key_padding_mask=padding).transpose(1, 2)
        return self.pooling(x, lengths=lengths)


def _valid_frames(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (utterances, frames), True for frames that are not padding."""
    num_frames = x.shape[2]
    if lengths is None:
        lengths = x.new_ones(len(x))
    return length_to_mask(lengths * num_frames, max_len=num_frames, device=x.device).bool()
