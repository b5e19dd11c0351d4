"""The layout that SpeechBrain's own ``SpeakerRecognition.from_hparams(source=...)`` loads, without the network.

``hyperparams.yaml`` (the modules, as they were trained) and ``embedding_model.ckpt`` (their weights). A hparams file is
a program: SpeechBrain runs it when it loads it.
"""

from pathlib import Path

import torch
from ruamel.yaml.comments import CommentedMap

from voice_biometrics.deploy.finished_run import WEIGHTS, FinishedRun, as_yaml

HEADER = """\
# {name} {version}, for SpeechBrain:
#   from speechbrain.inference.speaker import SpeakerRecognition
#   model = SpeakerRecognition.from_hparams(source="<this folder>", savedir="<this folder>")
#   model.verify_files("a.wav", "b.wav")
# Its score is the cosine that ../calibration.json gives a meaning to (fp32); its threshold of 0.25 is not this model's.

sample_rate: {sample_rate}
"""
FOOTER = f"""
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        {WEIGHTS}: !ref <{WEIGHTS}>
"""


def write_speechbrain_layout(run: FinishedRun, folder: Path, version: str) -> None:
    """Write the two files to ``folder``."""
    folder.mkdir()
    header = HEADER.format(name=run.settings["name"], version=version, sample_rate=run.sample_rate)
    nodes = CommentedMap(run.nodes)
    (folder / "hyperparams.yaml").write_text(header + as_yaml(nodes).rstrip() + "\n" + FOOTER, encoding="utf-8")
    torch.save(run.modules[WEIGHTS].state_dict(), folder / f"{WEIGHTS}.ckpt")
