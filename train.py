"""Train a speaker-embedding model: ``python train.py [HPARAMS] [--key value ...]``.

    python train.py hparams/ecapa_small.yaml --corpus speechocean762 --data_folder /path/to/speechocean762
    torchrun --nproc_per_node 4 train.py hparams/ecapa_small.yaml ...           one process a GPU

HPARAMS is hparams/ecapa_small.yaml unless named; --key sets any key of it:
  --corpus NAME --data_folder PATH   demo_voices (default), speaker_folders, speechocean762, librispeech, voxceleb;
                                     several joined: --corpus a,b --data_folder A,B
  --valid_speakers 0.2               held-out speakers: a share or a number; 0 trains on everybody
  --number_of_epochs 25 --batch_size 128 --lr 0.001 --seed 1986 --output_folder PATH --num_workers 0
and SpeechBrain's options: --device cuda:0, --precision bf16, --ckpt_interval_steps N, --noprogressbar, ...

Writes to results/<hparams>/<corpus>/<seed>: manifests/, hyperparams.yaml, env.log, train_log.txt, metrics.csv (a row
an epoch), curves.png and save/ (the best and the last checkpoint). Stopped in any way, it goes on when started again.
"""

import dataclasses
import logging
import math
import sys
from contextlib import nullcontext
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import ddp_init_group, if_main_process, run_on_main

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.common.errors import tell_input_errors
from voice_biometrics.common.manifest import read_record
from voice_biometrics.experiment.hparams import Run, read_command_line
from voice_biometrics.experiment.run_folder import only_run_in, read_epochs, record_hparams, resolve_hparams
from voice_biometrics.models.fast_ecapa import speed_up
from voice_biometrics.training.brain import HeldOut, SpeakerBrain
from voice_biometrics.training.dataio import CropReader, loading_options, training_dataset
from voice_biometrics.training.optimisation import keep_freed_memory, resolve_precision
from voice_biometrics.training.transfer import check_transfer, start_from


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Prepare the corpus, train, and say what came out."""
    run = read_command_line(arguments, __doc__)
    check_transfer(run.settings)
    if run.settings["sentence_len"]:
        keep_freed_memory()
    start_processes(run)
    with only_run_in(Path(run.settings["output_folder"])) if if_main_process() else nullcontext():
        record = prepare_corpus(run)
        hparams = build(run, record["num_speakers"])
        brain, dataset = make_brain(run, hparams)
        fit(brain, dataset, hparams)
    if if_main_process():
        say_results(run)


def start_processes(run: Run) -> None:
    """Join the other processes of a ``torchrun``; on CPU they talk by gloo."""
    if not torch.cuda.is_available():
        run.run_opts = dataclasses.replace(run.run_opts, distributed_backend="gloo")
    ddp_init_group(run.run_opts)


def prepare_corpus(run: Run) -> dict:
    """Write the manifests on the main process, and return their record to all."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    resolve_hparams(run.text, run.overrides, Path(run.settings["output_folder"]))  # before a trained run is touched
    settings, folder = Settings.from_hparams(run.settings), Path(run.settings["manifest_folder"])
    run_on_main(prepare, kwargs={"settings": settings, "manifest_folder": folder})
    return read_record(folder)


def build(run: Run, num_speakers: int) -> dict:
    """Build the objects of the hparams and make the run folder."""
    folder = Path(run.settings["output_folder"])
    resolved = resolve_hparams(run.text, run.overrides, folder, run.count_classes(num_speakers))
    run_on_main(record_hparams, args=[resolved, folder])
    sb.create_experiment_directory(str(folder))
    hparams = run.build(num_speakers)
    hparams["precision"] = resolve_precision(hparams["precision"], run.run_opts.device)
    if hparams["pretrained"]:  # also when the run goes on: its checkpoint, which then replaces it, might be broken
        start_from(Path(hparams["pretrained"]), hparams["embedding_model"], hparams["classifier"], folder)
    speed_up(hparams["modules"].values())
    return hparams


def make_brain(run: Run, hparams: dict) -> tuple[SpeakerBrain, DynamicItemDataset]:
    """Make the training set and the Brain that is to learn it."""
    manifests = Path(hparams["manifest_folder"])
    replacements = Settings.from_hparams(run.settings).replacements()
    crops = CropReader(hparams["sentence_len"], hparams["sample_rate"], hparams["seed"], hparams["augmentation"])
    dataset = training_dataset(manifests / "train.csv", replacements, crops, hparams["crop_every_s"])
    held_out = HeldOut.read(manifests, replacements)
    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run.run_opts,
        checkpointer=hparams["checkpointer"],
        crops=crops,
        held_out=held_out,
    )
    return brain, dataset


def fit(brain: SpeakerBrain, dataset: DynamicItemDataset, hparams: dict) -> None:
    """Train all epochs that are not done yet."""
    loading = loading_options(hparams, [row["spk_id"] for row in dataset.data.values()])
    brain.train_sampler = loading.get("batch_sampler")  # SpeechBrain tells its own samplers the epoch, and this one
    brain.fit(hparams["epoch_counter"], dataset, train_loader_kwargs=loading)


def say_results(run: Run) -> None:
    """Say the best EER, where things are, and the next command."""
    folder = Path(run.settings["output_folder"])
    known = [row for row in read_epochs(folder) if not math.isnan(row["eer"])]
    if known:
        best = min(known, key=lambda row: row["eer"])
        print(f"Best EER on held-out speakers: {100 * best['eer']:.2f} % in epoch {best['epoch']:.0f} of {len(known)}")
    else:
        print("Trained on all speakers: the last checkpoint counts")
    print(f"Run folder: {folder} (curves.png, metrics.csv, save/)\nNext: python eval_eer.py {run.command_line}")


if __name__ == "__main__":
    main(sys.argv[1:])
