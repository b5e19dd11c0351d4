"""Packages of the voice-biometrics recipe, shared by its scripts.

Import this package before PyTorch and ONNX Runtime, which read these settings when they are loaded.
"""

import os

# Threads that spin while they wait for each other starve when anything else wants the cores: with one busy neighbour on
# two cores, embedding an utterance took ten times as long (1.3 against 18 utterances a second).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# ONNX Runtime otherwise looks up Microsoft's telemetry server, and writes a device ID and a database below ~/.cache. It
# reads this when it is imported (see Privacy.md of the package).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
