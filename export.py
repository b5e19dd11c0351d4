"""Export a trained run as a model folder, for use without PyTorch: ``python export.py [HPARAMS] [--key value ...]``.

    python export.py hparams/ecapa_small.yaml --corpus speechocean762 --data_folder /path/to/speechocean762
    python export.py results/ecapa_small/speechocean762/1986 --data_folder /path/to/speechocean762

Give the arguments of train.py, or the run folder, and any of
  --calibration_from RUN_FOLDER ...   runs of the same hparams that held out other speakers (--split_seed 1, 2, ...),
                                      for a run trained on all speakers (--valid_speakers 0)
  --model_folder PATH                 default: <run folder>/model
  --version 1.0                       of the model: letters, digits, dots, + and -
  --whiten 0.2                        strength (0 to 1) of a within-speaker whitening, estimated on training speakers
                                      and folded into the last layer; default: 0

Writes embedder.onnx (waveform to embedding), embedder.int8.onnx (smaller, faster), calibration.json (score to
log-likelihood ratio, thresholds and error rates, from held-out speakers), MODEL_CARD.md, SHA256SUMS, speechbrain/ (the
same model for SpeechBrain's SpeakerRecognition.from_hparams(source=...)) and, if the features are Kaldi's,
embedder.sherpa.onnx (for sherpa-onnx and WeSpeaker: docs/deployment.md). A run folder can execute code: export only
runs that you trust.
"""

import argparse
import logging
import sys
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
from voice_biometrics.common.errors import InputError, OptionParser, tell_input_errors
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.export.package import write_model_folder
from voice_biometrics.inference.model_folder import ENGINE_NAME, NAME, ModelFolder
from voice_biometrics.metrics.formatting import per_cent


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Export a run and print its results."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, rest = parse_options(arguments)
    run = TrainedRun.from_command_line(rest, __doc__)
    newest = not run.has_held_out  # it has no best checkpoint then, and the others must be like it
    data_folder = run.settings["data_folder"]
    others = [TrainedRun(folder, data_folder, newest) for folder in options.calibration_from]
    destination = options.model_folder or run.folder / "model"
    say(write_model_folder(run, others, destination, options.version, options.whiten))


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the options of this script out of ``arguments``; the rest are those of train.py."""
    parser = OptionParser(__doc__)
    parser.add_argument("--calibration_from", type=Path, nargs="+", default=[])
    parser.add_argument("--model_folder", type=Path)
    parser.add_argument("--version", default="1.0")
    parser.add_argument("--whiten", type=float, default=0.0)
    options, rest = parser.parse_known_args(arguments)
    if not NAME.fullmatch(options.version):
        raise InputError(f"--version {options.version!r}: expected letters, digits, dots, + and -")
    return options, rest


def say(model: ModelFolder) -> None:
    """Print the EER and size of each file, and the next step."""
    for entry in model.embedders.values():
        print(
            f"{entry.file:<20} EER {per_cent(entry.eer)}, 95 % interval over {model.held_out.num_speakers} held-out "
            f"speakers; {len(model.onnx[entry.file]) / 1e6:.1f} MB"
        )
    if (model.path / ENGINE_NAME).is_file():
        print(f"{ENGINE_NAME:<20} the embeddings of embedder.onnx in sherpa-onnx and WeSpeaker: docs/deployment.md")
    print(f"Model folder: {model.path} (details: MODEL_CARD.md)")
    print(f"Next: python verify.py compare A.wav B.wav --model {model.path}")


if __name__ == "__main__":
    main(sys.argv[1:])
