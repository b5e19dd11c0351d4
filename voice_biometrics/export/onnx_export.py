"""Export trained modules to ONNX: from waveforms, or from the log-mel energies that engines on devices compute.

From waveforms (batch, samples) to embeddings (batch, dims), or from Kaldi's log-mels (N, T, 80) to embeddings
(N, dims); all axes but the last are dynamic. The second is for sherpa-onnx, whose metadata it has, and WeSpeaker's
runtime, whose names of input and output it has.

Source: ``speaker-embedding-extractor-model.cc`` of sherpa-onnx, ``onnx_speaker_model.cc`` of WeSpeaker.
"""

import logging
import warnings
from pathlib import Path

import onnx
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import nn

from voice_biometrics.common.errors import InputError
from voice_biometrics.export.onnx_ecapa import OPSET, OnnxGraph, add_ecapa
from voice_biometrics.export.onnx_front_end import add_computed_front_end, add_front_end, read_front_end
from voice_biometrics.inference.embedder import INPUT, OUTPUT
from voice_biometrics.models.fast_ecapa import FastECAPA

ENGINE_INPUT, ENGINE_OUTPUT = "feats", "embs"
EXAMPLE_SHAPE = (2, 100)  # utterances, frames: any, because both axes are dynamic


def export_onnx(modules: nn.ModuleDict, dims: int, path: Path, for_engines: bool = False) -> None:
    """Write trained modules as an ONNX file.

    Arguments
    ---------
    modules : ``compute_features``, ``mean_var_norm`` and ``embedding_model`` of a run, in evaluation mode.
    dims : dimensions of an embedding.
    path : file to write.
    for_engines : start from Kaldi's log-mel energies instead of waveforms.

    Raises
    ------
    InputError : one of the modules is not supported; ``for_engines``, and the features are not based on these energies.
    """
    graph, front_end = OnnxGraph(), read_front_end(modules["compute_features"], modules["mean_var_norm"])
    if for_engines:
        source, shape, output = ENGINE_INPUT, ["N", "T", front_end.mels.shape[1]], ENGINE_OUTPUT
        features, cosines = add_computed_front_end(graph, front_end, source)
    else:
        source, shape, output = INPUT, ["batch", "samples"], OUTPUT
        features, cosines = add_front_end(graph, front_end, source)
    network = modules["embedding_model"]
    if type(network) in (ECAPA_TDNN, FastECAPA):  # a derived class may compute something else
        embeddings = add_ecapa(graph, network, features, cosines)
    else:
        features = features if cosines is None else graph.op("MatMul", features, cosines)
        width = (front_end.mels if front_end.cosines is None else front_end.cosines).shape[1]
        embeddings = add_by_pytorch(graph, network, features, width)
    onnx.save(graph.model(source, shape, embeddings, output, dims), path)


def engine_metadata(sample_rate: int, dims: int) -> dict[str, str]:
    """Return the metadata that sherpa-onnx demands."""
    return {
        "framework": "wespeaker",  # the kind of engine: takes any model with one input and one output
        "language": "any",
        "sample_rate": str(sample_rate),
        "output_dim": str(dims),
        "normalize_samples": "0",  # waveforms in [-1, 1] are multiplied by 32768
        "feature_normalize_type": "",  # the graph subtracts the mean
    }


def add_by_pytorch(graph: OnnxGraph, network: nn.Module, features: str, width: int) -> str:
    """Add a network by PyTorch's exporter: ``features`` (batch, frames, ``width``) to (batch, dims)."""
    graph.place = "network/"
    any_size = torch.export.Dim.DYNAMIC
    example, shapes = (torch.randn(*EXAMPLE_SHAPE, width),), ({0: any_size, 1: any_size},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from PyTorch's own code
            # strict: otherwise the len() in SpeechBrain's length_to_mask fixes the batch size
            program = torch.export.export(network, example, dynamic_shapes=shapes, strict=True)
            exported = torch.onnx.export(program, opset_version=OPSET, external_data=False, verbose=False)
    except RuntimeError as error:  # the base of all errors of both exporters
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"embedding_model: {type(network).__name__} could not be exported: {first_line}") from error
    embeddings = graph.include(exported.model_proto, features)  # (batch, 1, dims)
    return graph.op("Squeeze", embeddings, [1])


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Add metadata to an ONNX file."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
