"""Heads that SpeechBrain does not have. A head maps embeddings to the input of the loss; it is only used in training.

All are built with ``out_neurons``, the number of classes.
"""

from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.activations import Softmax
from speechbrain.nnet.containers import Sequential
from speechbrain.nnet.linear import Linear
from torch import Tensor, nn, tensor
from torch.nn.functional import normalize


class SubCentreClassifier(Classifier):
    """SpeechBrain's cosine head with ``num_centres`` centres per class; the nearest one counts.

    Source: Deng et al., "Sub-center ArcFace", ECCV 2020, equation 4.
    """

    def __init__(self, input_size: int, out_neurons: int, num_centres: int = 3) -> None:
        super().__init__(input_size, out_neurons=out_neurons * num_centres)
        self.num_centres = num_centres

    def forward(self, x: Tensor) -> Tensor:
        """Return the cosines (utterances, 1, classes) of the embeddings ``x`` (utterances, 1, dims)."""
        return super().forward(x).unflatten(2, (-1, self.num_centres)).max(dim=3).values


class SoftmaxClassifier(Sequential):
    """A linear layer with bias, then a log-softmax: log-probabilities of the classes."""

    def __init__(self, input_size: int, out_neurons: int) -> None:
        linear = Linear(input_size=input_size, n_neurons=out_neurons)
        super().__init__(linear=linear, log_softmax=Softmax(apply_log=True))


class ScaledEmbeddings(nn.Module):
    """Head for losses that compare embeddings with each other: scales unit-length embeddings by a learned factor.

    ``scale`` is its initial value; the logarithm is learned, so it stays positive. There are no weights per class, so
    ``out_neurons`` is ignored.
    """

    def __init__(self, scale: float = 10.0, out_neurons: int = 0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(tensor(float(scale)).log())

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings ``x`` (utterances, 1, dims), scaled to the learned length."""
        return self.log_scale.exp() * normalize(x, dim=2)
