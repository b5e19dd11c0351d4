"""A trained run to a model folder: ONNX files, calibration, model card."""
