"""Losses that SpeechBrain does not have, beside its ``AngularMargin`` and ``AdditiveAngularMargin`` (AAM).

The margins map cosines to logits and are wrapped in ``LogSoftmaxWrapper``, like SpeechBrain's own. The other losses
take the outputs of a network or its head and the class numbers, and return a mean loss.
"""

import math

import torch
from speechbrain.nnet.losses import AdditiveAngularMargin
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from voice_biometrics.common.errors import InputError


class WarmUpMargin(AdditiveAngularMargin):
    """SpeechBrain's AAM with a margin that grows linearly from 0 over the first epochs.

    ``margin``, in radians, is reached after ``warm_up_epochs`` (0: from the start). It depends on ``epochs_done`` only,
    which ``set_progress`` sets before each step, so a resumed run has the same margin. Raises InputError if
    ``warm_up_epochs`` is negative.
    """

    def __init__(
        self, margin: float = 0.2, scale: float = 30.0, warm_up_epochs: float = 0, easy_margin: bool = False
    ) -> None:
        super().__init__(margin, scale, easy_margin)
        if warm_up_epochs < 0:
            raise InputError(f"warm_up_epochs: expected 0 or more epochs, found {warm_up_epochs}")
        self.full_margin = margin
        self.warm_up_epochs = warm_up_epochs
        self.epochs_done = 0.0

    @property
    def epochs_done(self) -> float:
        """Epochs trained so far, fractional."""
        return self._epochs_done

    @epochs_done.setter
    def epochs_done(self, epochs: float) -> None:
        self._epochs_done = epochs
        share = min(1.0, epochs / self.warm_up_epochs) if self.warm_up_epochs else 1.0
        self.margin = share * self.full_margin
        self.cos_m, self.sin_m = math.cos(self.margin), math.sin(self.margin)
        self.th = -self.cos_m  # cos(pi - m): beyond it cos(angle + m) would rise again
        self.mm = self.sin_m * self.margin


class InterTopKMargin(WarmUpMargin):
    """AAM with a penalty on the ``top_k`` most similar other speakers (the highest non-target cosines).

    Their angle is reduced by ``top_k_margin`` radians, which raises their logit. With ``top_k`` 0 it is plain AAM; the
    other options are those of ``WarmUpMargin``. Raises InputError if ``top_k`` is negative.

    Source: Zhao et al., "Multi-query multi-head attention pooling and inter-topK penalty for speaker verification",
    ICASSP 2022, arXiv 2110.05042.
    """

    def __init__(self, *args, top_k: int = 5, top_k_margin: float = 0.06, **options) -> None:
        super().__init__(*args, **options)
        if top_k < 0:
            raise InputError(f"top_k: expected 0 or more speakers, found {top_k}")
        self.top_k = top_k
        self.cos_top, self.sin_top = math.cos(top_k_margin), math.sin(top_k_margin)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return logits (utterances, speakers) of the cosines ``outputs`` and the one-hot ``targets``, same shape."""
        logits = super().forward(outputs, targets)
        cosines = outputs.float().clamp(-1 + 1e-7, 1 - 1e-7)
        top_k = min(self.top_k, cosines.shape[1] - 1)
        rows = (cosines - 3 * targets).topk(top_k, dim=1).indices  # a target's cosine less 3 is never among them
        nearest = torch.zeros_like(cosines).scatter(1, rows, 1.0).bool()
        nearer = cosines * self.cos_top + (1 - cosines.square()).sqrt() * self.sin_top  # cos(angle - m')
        return torch.where(nearest, self.scale * nearer, logits)


class SupervisedContrastiveLoss(nn.Module):
    """Attract embeddings of one speaker and repel those of different speakers, within a batch.

    An utterance without another one of its speaker in the batch is not an anchor, but is in the denominators.
    ``weight`` multiplies the loss, ``temperature`` divides the cosines.

    Source: Khosla et al., "Supervised contrastive learning", NeurIPS 2020, arXiv 2004.11362, equation 2.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 0.1) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature

    def forward(self, embeddings: Tensor, speakers: Tensor, utt_ids: object = None) -> Tensor:
        """Return the weighted mean over the anchors of ``embeddings`` (utterances, 1, dims); 0 without anchors.

        ``speakers`` (utterances, 1) are class numbers.
        """
        vectors = normalize(embeddings.squeeze(1).float(), dim=1)
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        similarities = (vectors @ vectors.T / self.temperature).masked_fill(itself, -torch.inf)
        log_shares = similarities.log_softmax(dim=1).masked_fill(itself, 0.0)  # (utterances, utterances)
        positive = (speakers == speakers.T) & ~itself
        num_positive = positive.sum(dim=1)
        of_anchors = -(log_shares * positive).sum(dim=1) / num_positive.clamp(min=1)
        return self.weight * of_anchors.sum() / (num_positive > 0).sum().clamp(min=1)


class AngularPrototypicalLoss(nn.Module):
    """Classify one utterance of each speaker in a batch among the mean embeddings of the speakers' other utterances.

    Batches need the same number of utterances of each speaker (``utterances_per_speaker``). The length of the head's
    outputs is the scale of the cosines (``ScaledEmbeddings``); the original's bias is omitted, since softmax is
    invariant to it.

    Source: Chung et al., "In defence of metric learning for speaker recognition", Interspeech 2020, arXiv 2003.11982,
    section 2.2.
    """

    def forward(self, outputs: Tensor, speakers: Tensor) -> Tensor:
        """Return the mean cross entropy of ``outputs`` (utterances, 1, dims), for ``speakers`` (utterances, 1).

        The last utterance of each speaker is classified, the others are averaged. Raises InputError unless all speakers
        have the same number of utterances, at least two.
        """
        order = speakers.squeeze(1).argsort(stable=True)
        counts = speakers.unique(return_counts=True)[1]
        if counts.min() != counts.max() or counts.min() < 2:
            raise InputError(
                "angular prototypical loss: expected the same number of utterances, at least 2, of each speaker, found "
                f"{int(counts.min())} to {int(counts.max())}; give utterances_per_speaker: 2"
            )
        grouped = outputs.squeeze(1).float()[order].unflatten(0, (len(counts), -1))  # (speakers, utterances, dims)
        queries, prototypes = grouped[:, -1], normalize(grouped[:, :-1].mean(dim=1), dim=1)
        return cross_entropy(queries @ prototypes.T, torch.arange(len(counts), device=outputs.device))


def set_progress(loss: object, epochs_done: float) -> None:
    """Set the progress of training, in fractional epochs, in the parts of a loss that depend on it."""
    for part in loss.modules() if isinstance(loss, nn.Module) else ():
        if isinstance(part, WarmUpMargin):
            part.epochs_done = epochs_done
