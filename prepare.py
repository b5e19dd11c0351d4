"""Prepare a corpus without training: ``python prepare.py HPARAMS [--key value ...]``.

Writes the manifests and trial lists of the run folder that ``train.py`` with the same arguments would use. Any key of
the hparams file can be overridden; relevant here are ``corpus``, ``data_folder``, ``trial_list``,
``valid_speakers``, ``test_speakers`` and ``split_seed``.
"""

import logging
import sys
from pathlib import Path

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.common.errors import tell_input_errors
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.experiment.run_folder import has_checkpoint, only_run_in


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Prepare the corpora of the hparams."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = read_command_line(arguments, __doc__)
    folder, run_folder = Path(run.settings["manifest_folder"]), Path(run.settings["output_folder"])
    with only_run_in(run_folder):
        prepare(Settings.from_hparams(run.settings), folder, has_checkpoint(run_folder))
    print(f"Manifests and trial lists: {folder}\nNext: python train.py {run.command_line}")


if __name__ == "__main__":
    main(sys.argv[1:])
