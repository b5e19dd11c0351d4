"""Heads over the embedding that SpeechBrain does not have; they are used in training only."""

from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from torch import Tensor, nn, tensor
from torch.nn.functional import normalize


class SubCentreClassifier(Classifier):
    """SpeechBrain's cosine head with several weights a speaker, of which the nearest counts.

    Arguments
    ---------
    input_size: dimensions of an embedding.
    out_neurons: speakers.
    num_centres: weights for each speaker.

    Source: Deng et al., "Sub-center ArcFace", ECCV 2020, equation 4.
    """

    def __init__(self, input_size: int, out_neurons: int, num_centres: int = 3) -> None:
        super().__init__(input_size, out_neurons=out_neurons * num_centres)
        self.num_centres = num_centres

    def forward(self, x: Tensor) -> Tensor:
        """Return the cosines (utterances, 1, speakers) of the embeddings ``x`` (utterances, 1, dims)."""
        return super().forward(x).unflatten(2, (-1, self.num_centres)).max(dim=3).values


class ScaledEmbeddings(nn.Module):
    """A head for losses that compare embeddings with each other: their length becomes a learned scale of the cosines.

    Arguments
    ---------
    scale: at the beginning; learned as its logarithm, so that it stays positive.
    """

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(tensor(float(scale)).log())

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings ``x`` (utterances, 1, dims), each of the learned length."""
        return self.log_scale.exp() * normalize(x, dim=2)
