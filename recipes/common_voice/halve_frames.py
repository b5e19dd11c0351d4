"""Turn a network for features every 20 ms into one for features every 10 ms: ``python halve_frames.py MODEL OUTPUT``.

A kernel of n frames becomes one of 2n - 1, with zeros between its values. It spans the same time and gives the same
results, at twice as many frames; training fills the zeros. ``hparams/ecapa_small_best_10ms.yaml --pretrained OUTPUT``
starts from it.

MODEL is a model folder, or another that ``pretrained`` accepts, except a run folder. The idea of a larger network that
computes the same at first is from Chen et al., "Net2Net", ICLR 2016, arXiv 1511.05641.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import save_file

from voice_biometrics.common.errors import OptionParser, tell_input_errors
from voice_biometrics.common.files import written_whole
from voice_biometrics.inference.model_folder import CALIBRATION_NAME
from voice_biometrics.training.transfer import find_weights, read_weights


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Write ``OUTPUT/weights.safetensors``, and copy ``calibration.json``, by which a model card names the origin."""
    parser = OptionParser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    weights = read_weights(find_weights(options.model))
    longer = {name: with_gaps(tensor) if tensor.ndim == 3 else tensor for name, tensor in weights.items()}
    with written_whole(options.output / "weights.safetensors") as temporary:
        save_file(longer, temporary)
    if (options.model / CALIBRATION_NAME).is_file():
        shutil.copy(options.model / CALIBRATION_NAME, options.output)


def with_gaps(kernels: torch.Tensor) -> torch.Tensor:
    """Return kernels (out, in, 2 * frames - 1) of ``kernels`` (out, in, frames), with a zero after all but the last."""
    longer = kernels.new_zeros(*kernels.shape[:2], 2 * kernels.shape[2] - 1)
    longer[:, :, ::2] = kernels
    return longer


if __name__ == "__main__":
    main(sys.argv[1:])
