"""From a trained run to a model folder, and from there to use without PyTorch: ``Recognizer``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Give ``Recognizer`` when it is asked for: the store and the export need not wait for ONNX Runtime."""
    if name != "Recognizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from voice_biometrics.inference.recognizer import Recognizer

    return Recognizer
