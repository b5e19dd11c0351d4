"""A model folder of toy size: 16 log band energies are its embedding, so that voices of unlike pitch differ."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from voice_biometrics.inference.embedder import INPUT, OUTPUT, onnx_metadata
from voice_biometrics.inference.model_folder import ONNX_NAMES, write_sums

DIMS = 16
FINGERPRINTS = {"fp32": "ab" * 32, "int8": "cd" * 32}


def write_toy_model_folder(folder: Path, fingerprints: dict[str, str] | None = None) -> Path:
    """Write a complete model folder in milliseconds; ``fingerprints`` other than the usual make another model."""
    fingerprints = fingerprints or FINGERPRINTS
    (folder / "speechbrain").mkdir(parents=True)
    for precision, name in ONNX_NAMES.items():
        onnx.save(toy_onnx(onnx_metadata("toy", "1.0", 16000, fingerprints[precision])), folder / name)
    (folder / "calibration.json").write_text(json.dumps(toy_calibration(fingerprints)))
    (folder / "MODEL_CARD.md").write_text("# toy\n")
    (folder / "speechbrain" / "hyperparams.yaml").write_text("toy: 1\n")
    write_sums(folder)
    return folder


def toy_onnx(metadata: dict[str, str]) -> onnx.ModelProto:
    """Return a model (batch, samples) -> (batch, 16): mean magnitudes of 16 band filters, in decibels of their mean."""
    time = np.arange(400)
    bands_hz = np.linspace(80, 1500, DIMS)
    filters = np.hanning(400) * np.cos(2 * np.pi * bands_hz[:, None] * time / 16000)  # (bands, samples)
    tensors = {"filters": filters[:, None].astype(np.float32), "axis_1": np.array([1]), "axis_2": np.array([2])}
    nodes = [
        helper.make_node("Unsqueeze", [INPUT, "axis_1"], ["wave"]),
        helper.make_node("Conv", ["wave", "filters"], ["bands"], strides=[160]),
        helper.make_node("Abs", ["bands"], ["magnitudes"]),
        helper.make_node("ReduceMean", ["magnitudes", "axis_2"], ["means"], keepdims=0),
        helper.make_node("Log", ["means"], ["logs"]),
        helper.make_node("ReduceMean", ["logs", "axis_1"], ["level"], keepdims=1),
        helper.make_node("Sub", ["logs", "level"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", DIMS])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    return model


def toy_calibration(fingerprints: dict[str, str]) -> dict:
    """Return the content of a ``calibration.json`` that is in order."""
    return {
        "format": 1,
        "name": "toy",
        "version": "1.0",
        "sample_rate": 16000,
        "embedding_dim": DIMS,
        "min_duration_s": 0.5,
        "held_out": {
            "description": "25 artificial speakers",
            "num_speakers": 25,
            "num_utterances": 500,
            "duration_s": {"shortest": 1.0, "median": 2.5, "longest": 8.0},
        },
        "embedders": {
            precision: {
                "file": ONNX_NAMES[precision],
                "fingerprint": fingerprint,
                "calibration": {
                    "slope": 20.0,
                    "offset": -14.0,
                    "prior": 0.5,
                    "num_target": 4750,
                    "num_nontarget": 120000,
                    "ridge": 0.0,
                    "quality_slopes": {},
                },
                "operating_points": {"smart_speaker": toy_point(2.0, 0.01), "door": toy_point(4.0, 0.0005)},
                "error_rates": {
                    "llr": [-10.0, 0.0, 2.0, 4.0, 5.5],
                    "far": [1.0, 0.06, 0.01, 0.0005, 0.0],
                    "frr": [0.0, 0.06, 0.2, 0.5, 0.9],
                },
                "eer": {"estimate": 0.06, "lower": 0.04, "upper": 0.08},
            }
            for precision, fingerprint in fingerprints.items()
        },
    }


def toy_point(threshold: float, max_far: float) -> dict:
    """Return an operating point that lets in ``max_far`` and turns away a fifth."""
    return {
        "threshold": threshold,
        "max_far": max_far,
        "support": "supported",
        "rule": f"the lowest threshold with a FAR of at most {100 * max_far:g} % on held-out trials",
        "far": {"estimate": max_far, "lower": max_far / 2, "upper": 2 * max_far},
        "frr": {"estimate": 0.2, "lower": 0.15, "upper": 0.25},
        "num_false_accepts": round(120000 * max_far),
        "num_false_rejects": 950,
        "num_target": 4750,
        "num_nontarget": 120000,
    }
