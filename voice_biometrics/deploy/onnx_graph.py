"""Write an ONNX graph operator by operator, as one would write the formula."""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10
Value = str | np.ndarray | torch.Tensor | float | list


class OnnxGraph:
    """Nodes and constants of a growing graph. ``place`` begins the names of what is added next."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.place = ""
        self._known: dict[tuple, str] = {}

    def op(self, kind: str, *inputs: Value, **attributes) -> str:
        """Add an operator and return the name of its output.

        An input that is no name is a constant: arrays and tensors with a fraction become float32, whole numbers int64.
        """
        return self._node(kind, inputs, 1, attributes)[0]

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Cut a value into equal parts and return their names."""
        return self._node("Split", [value], parts, {"axis": axis, "num_outputs": parts})

    def linear(self, rows: str, weight: Value, bias: Value) -> str:
        """Return ``rows @ weight + bias``: (rows, inputs), (inputs, outputs), (outputs,) -> (rows, outputs)."""
        return self.op("Gemm", rows, weight, bias)

    def include(self, other: onnx.ModelProto, value: str) -> str:
        """Add all of another model, ``value`` being its only input, and return the name of its only output."""
        graph = onnx.compose.add_prefix(other, self.place).graph
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]  # the exporter's notes name files of this machine
            node.input[:] = [value if name == graph.input[0].name else name for name in node.input]
        self.nodes += graph.node
        self.constants += graph.initializer
        return graph.output[0].name

    def model(self, waveform: str, embedding: str, name: str, dims: int) -> onnx.ModelProto:
        """Return the graph as a model from ``waveform`` (batch, samples) to ``embedding`` (batch, ``dims``).

        The embedding is called ``name`` from outside.
        """
        self.nodes.append(helper.make_node("Identity", [embedding], [name], name=name))
        shapes = {waveform: ["batch", "samples"], name: ["batch", dims]}
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
        """Keep a constant, once, and return its name."""
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (array.tobytes(), array.shape, array.dtype.kind)
        if key not in self._known:
            self._known[key] = f"{user}/constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), self._known[key]))
        return self._known[key]
