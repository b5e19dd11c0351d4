"""An ONNX embedder with the network's weights and products in int8.

Weights are quantised once, a scale for each output channel; what comes into a layer is quantised while it runs, to the
range that it has in this utterance: that needs no audio to calibrate with, and no utterance leaves the range. Left as
they are: the front end (int8 features would ruin the embedding, cosine 0.11), the last layer, whose errors nothing
evens out, and narrow layers, where quantising takes the time that it saves.

Weights of matrix products get 7 bits: processors without VNNI add pairs of products in 16 bits, and with 8 bits would
clip them, so that scores depended on the processor.
"""

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

LAYERS = ("Gemm", "Conv")  # what the layers of networks are made of; the front end is made of MatMul
MIN_CHANNELS = 100  # of a layer that is quantised, on both sides
SCHEME = "dynamic int8, weights 7 bits per channel, narrow layers and the last exact"  # part of the fingerprint


def quantise(source: Path, destination: Path) -> None:
    """Write the quantised form of the ONNX file ``source`` to ``destination``, without its metadata."""
    graph = onnx.load(source).graph
    shapes = {constant.name: constant.dims for constant in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    exact = [node.name for node in graph.node if node.op_type not in LAYERS]
    for layer in layers:
        if layer is layers[-1] or min(shapes[layer.input[1]][:2]) < MIN_CHANNELS:
            exact += [layer.name, f"{layer.name}_MatMul"]  # the tool turns Gemm into this before it looks
    convolves = any(layer.op_type == "Conv" for layer in layers)
    logging.getLogger().addFilter(_is_no_advice)
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
        logging.getLogger().removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Leave out ONNX Runtime's advice to run its pre-processing, which changes nothing here."""
    return "pre-processing" not in record.getMessage()
