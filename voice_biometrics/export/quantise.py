"""Dynamic int8 quantisation of an ONNX embedder.

Weights are quantised once with one scale per output channel. The input of a layer is quantised at run time to its range
in the current utterance, so no calibration audio is needed and no utterance is out of range. Exact layers: the front
end (int8 features would ruin the embedding, cosine 0.11), the last layer, whose errors no later layer averages out, and
narrow layers, where quantisation takes as long as it saves.

Weights of matrix products have 7 bits. Processors without VNNI add pairs of products in 16 bits, which 8-bit weights
would overflow, so scores would depend on the processor.
"""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

LAYERS = ("Gemm", "Conv")  # layers of networks; the front end has MatMul
MIN_CHANNELS = 100  # of a quantised layer, for input and output
SCHEME = "dynamic int8, weights 7 bits per channel, narrow layers and the last exact"  # part of the fingerprint


def quantise(source: Path, destination: Path) -> None:
    """Write the quantised form of the ONNX file ``source`` to ``destination``, without metadata."""
    graph = onnx.load(source).graph
    shapes = {constant.name: constant.dims for constant in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    exact = [node.name for node in graph.node if node.op_type not in LAYERS]
    for layer in layers:
        if layer is layers[-1] or min(shapes[layer.input[1]][:2]) < MIN_CHANNELS:
            exact += [layer.name, f"{layer.name}_MatMul"]  # ONNX Runtime renames Gemm before it looks
    convolves = any(layer.op_type == "Conv" for layer in layers)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to run a pre-processing that changes nothing here
    try:
        quantize_dynamic(
            source,
            destination,
            weight_type=QuantType.QUInt8 if convolves else QuantType.QInt8,  # signed convolutions are five times slower
            per_channel=True,
            reduce_range=not convolves,
            nodes_to_exclude=exact,
        )
    finally:
        logging.disable(disabled)
