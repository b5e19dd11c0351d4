"""Trained modules to one ONNX file: waveform (batch, samples) to embedding (batch, dims), both axes free."""

import io
import logging
import warnings
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import onnx
import torch
from speechbrain.lobes.models import ECAPA_TDNN as speechbrain_ecapa
from torch import Tensor, nn

from voice_biometrics.common.errors import InputError
from voice_biometrics.export.onnx_ecapa import OPSET, OnnxGraph, add_ecapa
from voice_biometrics.export.onnx_front_end import add_front_end, read_front_end
from voice_biometrics.inference.embedder import INPUT, OUTPUT
from voice_biometrics.models import ecapa_variants
from voice_biometrics.models.fast_ecapa import FastEcapa

EXAMPLE_SHAPE = (2, 100)  # utterances, frames: any would do, since both axes are free


def export_onnx(modules: nn.ModuleDict, dims: int, path: Path) -> None:
    """Write trained modules as an ONNX file.

    Arguments
    ---------
    modules : ``compute_features``, ``mean_var_norm`` and ``embedding_model`` of a run, in evaluation mode.
    dims : numbers in an embedding.

    Raises
    ------
    InputError : the export does not know one of the modules.
    """
    graph, network = OnnxGraph(), modules["embedding_model"]
    front_end = read_front_end(modules["compute_features"], modules["mean_var_norm"])
    features, cosines = add_front_end(graph, front_end, INPUT)
    if type(network) in (speechbrain_ecapa.ECAPA_TDNN, FastEcapa):  # a class derived from it is another function
        embeddings = add_ecapa(graph, network, features, cosines)
    else:
        features = features if cosines is None else graph.op("MatMul", features, cosines)
        width = (front_end.mels if front_end.cosines is None else front_end.cosines).shape[1]
        embeddings = add_by_pytorch(graph, network, features, width)
    onnx.save(graph.model(INPUT, embeddings, OUTPUT, dims), path)


def add_by_pytorch(graph: OnnxGraph, network: nn.Module, features: str, width: int) -> str:
    """Add a network as PyTorch's exporter writes it: ``features`` (batch, frames, ``width``) to (batch, dims)."""
    graph.place = "network/"
    any_size = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with ExitStack() as around:
            around.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # of PyTorch's own code
            around.enter_context(redirect_stdout(io.StringIO()))
            for module in (speechbrain_ecapa, ecapa_variants):
                around.enter_context(patch.object(module, "length_to_mask", _mask_of_whole))
            program = torch.onnx.export(
                network,
                (torch.randn(*EXAMPLE_SHAPE, width),),
                input_names=["features"],
                output_names=["embeddings"],
                dynamic_shapes=({0: any_size, 1: any_size},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
            )
    except torch.onnx.OnnxExporterError as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"embedding_model: {type(network).__name__} could not be exported: {first_line}") from error
    embeddings = graph.include(program.model_proto, features)  # (batch, 1, dims)
    return graph.op("Squeeze", embeddings, [1])


def _mask_of_whole(lengths: Tensor, max_len: int, **_) -> Tensor:
    """Return the mask of whole utterances; SpeechBrain's own fixes the number of utterances when it is exported."""
    return torch.ones(lengths.shape[0], max_len)


def write_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Write what an ONNX file says of itself into it."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
