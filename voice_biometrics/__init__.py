"""What the scripts of the voice-biometrics recipe share; each module has one job.

Import this package before PyTorch: OpenMP reads its settings when it is loaded.
"""

import os

# Threads that spin while they wait for each other starve when anything else wants the cores: with one busy neighbour on
# two cores, embedding an utterance took ten times as long (1.3 against 18 utterances a second).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
