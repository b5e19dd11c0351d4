"""Speaker verification with a model folder, without PyTorch: ``Recognizer``."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import ``Recognizer``, and with it ONNX Runtime, only when it is used."""
    if name != "Recognizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from voice_biometrics.inference.recognizer import Recognizer

    return Recognizer
