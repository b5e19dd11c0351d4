"""Whiten what differs between utterances of one speaker: a linear map that is folded into the last layer of a network.

Within-class covariance normalisation, shrunk towards the identity. Source: Hatch, Kajarekar and Stolcke, "Within-class
covariance normalization for SVM-based speaker recognition", Interspeech 2006, equations 4 to 6.
"""

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml

from voice_biometrics.common.errors import InputError
from voice_biometrics.evaluation.trained_run import WEIGHTS, TrainedRun
from voice_biometrics.experiment.hparams import as_yaml
from voice_biometrics.scoring.cosine import normalise_lengths

PER_SPEAKER, MAX_UTTERANCES = 3, 10_000  # of the training part, to estimate the covariance from


def whiten(run: TrainedRun, share: float) -> None:
    """Fold the whitening of ``run``'s training utterances, each clean and augmented, into its network.

    ``share``, 0 to 1, is that of the covariance; the rest is the identity. Raises InputError for another share, and for
    a network without a last layer ``fc``.
    """
    if not 0 <= share <= 1:
        raise InputError(f"--whiten {share}: expected a number from 0 to 1")
    network = run.modules[WEIGHTS]
    layer = getattr(getattr(network, "fc", None), "conv", None)
    if layer is None:
        raise InputError(f"--whiten: {type(network).__name__} has no last layer fc, which ECAPA-TDNNs have")
    utterances = run.utterances(run.manifests / "train.csv").groupby("spk_id").head(PER_SPEAKER)
    utterances = utterances.sample(min(len(utterances), MAX_UTTERANCES), random_state=0).reset_index(drop=True)
    speakers = dict(zip(utterances["ID"], utterances["spk_id"], strict=True))
    augmentation = load_hyperpyyaml(as_yaml({"augmentation": run.hparams["augmentation"]}))["augmentation"]
    augmentation.prepare(utterances)
    embeddings = [
        run.embed(utterances),
        run.embed(utterances, lambda samples, _, utt_id: augmentation(samples, 0, utt_id, speakers[utt_id])),
    ]
    covariance = within_speakers(np.concatenate(embeddings), np.tile(utterances["spk_id"], 2))
    matrix = torch.from_numpy(whitening(covariance, share)).to(layer.weight)
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("ij,jkl->ikl", matrix, layer.weight))  # (dims, channels, 1)
        layer.bias.copy_(matrix @ layer.bias)
    run.whitened = share


def within_speakers(embeddings: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Return the covariance (dims, dims) within speakers, each counting the same, of ``embeddings`` at length 1."""
    unit = normalise_lengths(embeddings).astype(np.float64)
    _, number, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), unit.shape[1]))
    np.add.at(means, number, unit)
    differences = (unit - (means / counts[:, None])[number]) / np.sqrt(counts[number])[:, None]
    return differences.T @ differences / len(counts)


def whitening(covariance: np.ndarray, share: float) -> np.ndarray:
    """Return the symmetric matrix (dims, dims) that whitens ``share`` of the covariance, scaled to a mean variance of
    1, and the identity for the rest."""
    scaled = covariance / np.diag(covariance).mean()
    values, vectors = np.linalg.eigh(share * scaled + (1 - share) * np.eye(len(covariance)))
    return (vectors / np.sqrt(values)) @ vectors.T
