"""Hand-written ONNX graph of SpeechBrain's ECAPA-TDNN for whole utterances, twice as fast as the network itself.

- Frames are rows (batch * frames, channels), so every layer is one matrix product with constant weights. ONNX Runtime
  packs these once and quantises them well.
- Batch normalisation after a ReLU is folded: its scale into the layer before, its shift into the bias of the layers
  after. This is exact, because reflection padding repeats values. It needs a positive scale; otherwise the channel is
  multiplied by its sign.
- Mean and deviation in the attention are equal for all frames of an utterance: their product is computed once.
- There is no mask, because all utterances of a batch have the same length.

Source: ``lobes.models.ECAPA_TDNN`` of SpeechBrain 1.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, SERes2NetBlock, TDNNBlock
from torch import Tensor, nn

from voice_biometrics.common.errors import InputError

OPSET = 20
IR_VERSION = 10
Value = str | np.ndarray | torch.Tensor | float | list


class OnnxGraph:
    """Nodes and constants of a graph under construction; ``place`` is the prefix of new names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.place = ""
        self._known: dict[tuple, str] = {}

    def op(self, kind: str, *inputs: Value, **attributes) -> str:
        """Add an operator and return the name of its output.

        An input that is not a name is a constant: floats become float32, integers int64.
        """
        return self._node(kind, inputs, 1, attributes)[0]

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Split a value into equal parts and return their names."""
        return self._node("Split", [value], parts, {"axis": axis, "num_outputs": parts})

    def linear(self, rows: str, weight: Value, bias: Value) -> str:
        """Return ``rows @ weight + bias``: (rows, inputs), (inputs, outputs), (outputs,) -> (rows, outputs)."""
        return self.op("Gemm", rows, weight, bias)

    def include(self, other: onnx.ModelProto, value: str) -> str:
        """Add another model with ``value`` as its only input and return the name of its only output."""
        graph = onnx.compose.add_prefix(other, self.place).graph
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]  # the exporter's notes name files of this machine
            node.input[:] = [value if name == graph.input[0].name else name for name in node.input]
        self.nodes += graph.node
        self.constants += graph.initializer
        return graph.output[0].name

    def model(self, source: str, shape: list, embedding: str, name: str, dims: int) -> onnx.ModelProto:
        """Return the graph as a model from the input ``source`` (``shape``) to the output ``name`` (N, ``dims``)."""
        self.nodes.append(helper.make_node("Identity", [embedding], [name], name=name))
        shapes = {source: shape, name: [shape[0], dims]}
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
        graph = helper.make_graph(self.nodes, "embedder", ends[:1], ends[1:], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _node(self, kind: str, inputs: Sequence[Value], num_outputs: int, attributes: dict) -> list[str]:
        name = f"{self.place}{kind}_{len(self.nodes)}"
        outputs = [name] if num_outputs == 1 else [f"{name}_{number}" for number in range(num_outputs)]
        names = [value if isinstance(value, str) else self._constant(value, name) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, outputs, name=name, **attributes))
        return outputs

    def _constant(self, value: Value, user: str) -> str:
        """Return the name of a constant; equal constants are stored once."""
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (array.tobytes(), array.shape, array.dtype.kind)
        if key not in self._known:
            self._known[key] = f"{user}/constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), self._known[key]))
        return self._known[key]


MAX_LOGIT = 60.0  # exp() of a larger one is close to the limit of float32


@dataclass(frozen=True)
class Rows:
    """Frames in rows, with a constant per channel that is still to be added.

    name : (batch * frames, channels) in the graph. shift : (channels,) float64.
    """

    name: str
    shift: Tensor


def add_ecapa(graph: OnnxGraph, network: ECAPA_TDNN, features: str, cosines: Tensor | None) -> str:
    """Add the network: ``features`` (batch, frames, features) to embeddings (batch, dims).

    ``cosines`` (features, coefficients) is a linear transform of the features to fold into the first layer. Raises
    InputError when the network has groups, another activation than ReLU, or no global context.
    """
    _check(network)
    return EcapaWriter(graph, features).write(network, cosines)


class EcapaWriter:
    """Writes one network; ``features`` as for ``add_ecapa``."""

    def __init__(self, graph: OnnxGraph, features: str) -> None:
        graph.place = "network/"
        self.graph, self.op = graph, graph.op
        self.features = features
        self.batch = self.op("Shape", features, start=0, end=1)  # (1,)
        self.num_frames = self.op("Shape", features, start=1, end=2)  # (1,)
        self.known_taps: dict[tuple[int, int], str] = {}

    def write(self, network: ECAPA_TDNN, cosines: Tensor | None) -> str:
        """Return the name of the embeddings."""
        first, *blocks = network.blocks
        width = first.conv.conv.in_channels if cosines is None else len(cosines)
        frames = Rows(self.op("Reshape", self.features, [-1, width]), torch.zeros(width, dtype=torch.float64))
        frames = self.tdnn(first, frames, cosines)
        outputs = []
        for number, block in enumerate(blocks, start=1):
            self.graph.place = f"network/block_{number}/"
            frames = self.block(block, frames)
            outputs.append(frames)
        self.graph.place = "network/end/"
        return self.pooled(network, self.tdnn(network.mfa, self.joined(outputs)))

    def tdnn(self, block: TDNNBlock, frames: Rows, cosines: Tensor | None = None) -> Rows:
        """Convolution, ReLU, batch normalisation."""
        scale, shift = scale_and_shift(block.norm.norm)
        weight, bias = block.conv.conv.weight.double(), block.conv.conv.bias.double()  # (outputs, inputs, taps)
        if cosines is not None:
            weight = torch.einsum("oct,mc->omt", weight, cosines.double())
        bias = bias + weight.sum(dim=2) @ frames.shift
        weight = (weight * scale.abs()[:, None, None]).permute(2, 1, 0).flatten(0, 1)  # (taps * inputs, outputs)
        rows = self.graph.linear(self.taps(block, frames.name, len(weight)), weight, bias * scale.abs())
        rows = self.op("Relu", rows)
        return Rows(rows if (scale > 0).all() else self.op("Mul", rows, scale.sign()), shift)

    def taps(self, block: TDNNBlock, frames: str, width: int) -> str:
        """Concatenate the input frames of a convolution: (batch * frames, channels) -> (batch * frames, ``width``)."""
        taps, dilation = block.conv.kernel_size, block.conv.dilation
        if taps == 1:
            return frames
        if (taps, dilation) not in self.known_taps:
            self.known_taps[taps, dilation] = self._which_rows(taps, dilation)
        return self.op("Reshape", self.op("Gather", frames, self.known_taps[taps, dilation], axis=0), [-1, width])

    def _which_rows(self, taps: int, dilation: int) -> str:
        """Return the row of each tap, (batch * frames * taps,), with reflection at both ends of an utterance."""
        one, last = [[(tap - taps // 2) * dilation for tap in range(taps)]], self.op("Sub", self.num_frames, [1])
        frame = self.op("Abs", self.op("Add", self.op("Unsqueeze", self._count(self.num_frames), [1]), one))
        frame = self.op("Sub", last, self.op("Abs", self.op("Sub", last, frame)))  # (frames, taps)
        first = self.op("Mul", self._count(self.batch), self.num_frames)  # (batch,) the first row of each utterance
        return self.op("Reshape", self.op("Add", self.op("Unsqueeze", first, [1, 2]), frame), [-1])

    def _count(self, number: str) -> str:
        """Return 0, 1, ..., ``number`` (1,) - 1."""
        return self.op("Range", 0, self.op("Squeeze", number, [0]), 1)

    def block(self, block: SERes2NetBlock, frames: Rows) -> Rows:
        """Pointwise layer, Res2 convolutions, pointwise layer, squeeze-and-excitation; and the shortcut around them."""
        wide = self.tdnn(block.tdnn2, self.res2(block, self.tdnn(block.tdnn1, frames)))
        wide_rows = self.op("Add", wide.name, wide.shift)
        utterances = self.utterances(wide_rows, wide.shift.numel())
        mean = self.op("Squeeze", self.time_mean(utterances), [1])  # (batch, channels)
        gate = self.op("Relu", self.pointwise(block.se_block.conv1, mean))
        gate = self.op("Sigmoid", self.pointwise(block.se_block.conv2, gate))
        gated = self.op("Mul", utterances, self.op("Unsqueeze", gate, [1]))
        gated = self.op("Reshape", gated, [-1, wide.shift.numel()])
        if block.shortcut is None:
            return Rows(self.op("Add", gated, frames.name), frames.shift)
        around = self.pointwise(block.shortcut, self.op("Add", frames.name, frames.shift))
        return Rows(self.op("Add", gated, around), torch.zeros_like(wide.shift))

    def res2(self, block: SERes2NetBlock, frames: Rows) -> Rows:
        """Res2: each group of channels but the first is convolved after adding the output of the group before."""
        scale = block.res2net_block.scale
        names = self.graph.split(frames.name, scale, axis=1)
        first, *groups = (Rows(name, shift) for name, shift in zip(names, frames.shift.chunk(scale), strict=True))
        outputs = [first]
        for group, step in zip(groups, block.res2net_block.blocks, strict=True):
            if len(outputs) > 1:
                group = Rows(self.op("Add", group.name, outputs[-1].name), group.shift + outputs[-1].shift)
            outputs.append(self.tdnn(step, group))
        return self.joined(outputs)

    def pooled(self, network: ECAPA_TDNN, frames: Rows) -> str:
        """Attentive statistics pooling and the last layer: rows -> (batch, dims)."""
        eps, num_channels = network.asp.eps, frames.shift.numel()
        utterances = self.utterances(frames.name, num_channels)
        mean = self.time_mean(utterances)  # (batch, 1, channels)
        centred = self.op("Sub", utterances, mean)
        squares = self.op("Mul", centred, centred)
        deviation = self.op("Sqrt", self.op("Max", self.time_mean(squares), eps))
        weights = self.attention(network, frames, self.op("Concat", mean, deviation, axis=2))
        total = self.time_sum(weights)
        offset = self.op("Div", self.time_sum(self.op("Mul", weights, centred)), total)  # from the plain mean
        variance = self.op("Div", self.time_sum(self.op("Mul", weights, squares)), total)
        variance = self.op("Sub", variance, self.op("Mul", offset, offset))
        deviation = self.op("Sqrt", self.op("Max", variance, eps))
        statistics = self.op("Concat", self.op("Add", mean, offset), deviation, axis=2)
        scale, shift = scale_and_shift(network.asp_bn.norm)
        weight, bias = network.fc.conv.weight.double().squeeze(2), network.fc.conv.bias.double()  # (dims, 2 * channels)
        bias = bias + weight @ shift + (weight * scale)[:, :num_channels] @ frames.shift
        return self.graph.linear(self.op("Squeeze", statistics, [1]), (weight * scale).t(), bias)

    def attention(self, network: ECAPA_TDNN, frames: Rows, context: str) -> str:
        """Return positive weights (batch, frames, channels), of any sum: exp(logits).

        ``context`` (batch, 1, 2 * channels) : mean and deviation of the utterance.
        """
        asp, num_channels = network.asp, frames.shift.numel()
        scale, shift = scale_and_shift(asp.tdnn.norm.norm)
        weight = asp.tdnn.conv.conv.weight.double().squeeze(2)  # (attention, 3 * channels): frames, means, deviations
        bias = asp.tdnn.conv.conv.bias.double() + weight[:, : 2 * num_channels] @ frames.shift.repeat(2)
        of_frames = self.graph.linear(frames.name, weight[:, :num_channels].t(), bias)
        of_context = self.op("MatMul", context, weight[:, num_channels:].t())
        hidden = self.op("Relu", self.op("Add", self.utterances(of_frames, len(weight)), of_context))
        hidden = self.op("Tanh", self.op("Add", self.op("Mul", hidden, scale), shift))
        weight = asp.conv.conv.weight.double().squeeze(2)  # its bias is equal for all frames: the softmax ignores it
        rows = self.op("Reshape", hidden, [-1, weight.shape[1]])
        logits = self.utterances(self.graph.linear(rows, weight.t(), torch.zeros(num_channels)), num_channels)
        if weight.abs().sum(dim=1).max() > MAX_LOGIT:  # tanh is at most 1
            logits = self.op("Sub", logits, self.op("ReduceMax", logits, [1], keepdims=1))
        return self.op("Exp", logits)

    def joined(self, parts: list[Rows]) -> Rows:
        """Concatenate channels."""
        shift = torch.cat([part.shift for part in parts])
        return Rows(self.op("Concat", *(part.name for part in parts), axis=1), shift)

    def pointwise(self, conv: nn.Module, rows: str) -> str:
        """SpeechBrain's convolution with one tap."""
        return self.graph.linear(rows, conv.conv.weight.double().squeeze(2).t(), conv.conv.bias.double())

    def utterances(self, rows: str, width: int) -> str:
        """Reshape (batch * frames, ``width``) to (batch, frames, ``width``)."""
        shape = self.op("Concat", self.batch, self.num_frames, [width], axis=0)
        return self.op("Reshape", rows, shape)

    def time_sum(self, utterances: str) -> str:
        """Sum over time as a matrix product, a third of the time of ReduceSum: (batch, frames, n) -> (batch, 1, n)."""
        shape = self.op("Concat", [1, 1], self.num_frames, axis=0)
        return self.op("MatMul", self.op("Expand", 1.0, shape), utterances)

    def time_mean(self, utterances: str) -> str:
        """Mean over time: (batch, frames, n) -> (batch, 1, n)."""
        return self.op("Div", self.time_sum(utterances), self.op("Cast", self.num_frames, to=1))


def scale_and_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return scale and shift of batch normalisation in evaluation mode, (channels,) float64 each."""
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _check(network: ECAPA_TDNN) -> None:
    """Raise InputError for a network that ``EcapaWriter`` does not support."""
    tdnns = [module for module in network.modules() if isinstance(module, TDNNBlock)]
    if any(tdnn.conv.conv.groups != 1 or not isinstance(tdnn.activation, nn.ReLU) for tdnn in tdnns):
        raise InputError("embedding_model: the export supports ECAPA_TDNN with ReLU and without groups only")
    if not network.asp.global_context:
        raise InputError("embedding_model: the export supports ECAPA_TDNN with global_context only")
