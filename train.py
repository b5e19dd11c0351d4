"""Train a speaker-embedding model: ``python train.py [HPARAMS] [--key value ...]``.

    python train.py hparams/ecapa_small.yaml --corpus speechocean762 --data_folder /path/to/speechocean762
    torchrun --nproc_per_node 4 train.py hparams/ecapa_small.yaml ...           one process per GPU

On a CPU it starts a process for each core (docs/scaling.md); --processes 1 prevents that.

HPARAMS defaults to hparams/ecapa_small.yaml; --key overrides any key of it:
  --corpus NAME --data_folder PATH   demo_voices (default), speaker_folders, speechocean762, librispeech, voxceleb,
                                     common_voice; to join corpora: --corpus a,b --data_folder A,B
  --valid_speakers 0.2               held-out speakers: a fraction or a number; 0 trains on all speakers
  --number_of_epochs 25 --batch_size 128 --lr 0.001 --seed 1986 --output_folder PATH --processes 2
and SpeechBrain's options: --device cuda:0, --precision bf16, --ckpt_interval_steps N, --noprogressbar, ...

Writes to results/<hparams>/<corpus>/<seed>: manifests/, hyperparams.yaml, env.log, train_log.txt, metrics.csv (one row
per epoch), curves.png and save/ (the best and the last checkpoint). The same command resumes an interrupted run.
"""

import logging
import math
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.dataset import DynamicItemDataset, add_dynamic_item, set_output_keys
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process, run_on_main

from data_prep.prepare import prepare
from data_prep.settings import Settings
from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.errors import InputError, tell_input_errors
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.experiment.hparams import (
    as_yaml,
    check_arguments,
    merged_tree,
    plain_settings,
    readable_errors,
)
from voice_biometrics.experiment.run_folder import (
    check_same_hparams,
    has_checkpoint,
    only_run_in,
    read_epochs,
    write_hparams,
)
from voice_biometrics.scoring.embeddings import MIN_DURATION_S
from voice_biometrics.training.audio_store import AudioStore
from voice_biometrics.training.brain import SpeakerBrain, init_processes
from voice_biometrics.training.dataio import CropReader, ManifestRows, count_crops, several_crops, train_loader_options
from voice_biometrics.training.optimisation import keep_freed_memory, resolve_precision
from voice_biometrics.training.processes import choose_num_processes, describe_processes, run_in_processes
from voice_biometrics.training.teachers import attach_teacher
from voice_biometrics.training.transfer import check_transfer, start_from

logger = logging.getLogger(__name__)


@tell_input_errors
def main(argv: list[str]) -> None:
    """Prepare the corpus, train in this process or in several, and print the results."""
    hparams_file, run_opts, overrides = sb.parse_arguments(check_arguments(argv, __doc__))
    run_opts = init_processes(run_opts)
    text = as_yaml(merged_tree(Path(hparams_file)))  # a variant with its base
    settings = plain_settings(text, overrides)
    check_transfer(settings)
    folder = Path(settings["output_folder"])
    with only_run_in(folder) if if_main_process() else nullcontext():
        run_on_main(check_same_hparams, args=[text, overrides, folder])
        prepare_data(settings)
        num_crops = count_crops(Path(settings["manifest_folder"]) / "train.csv", settings["crop_every_s"])
        num_processes = choose_num_processes(settings, num_crops, run_opts.device)
        run_in_processes(num_processes, fit, hparams_file, text, overrides, run_opts)
    if if_main_process():
        print_results(folder, shlex.join(argv))


def prepare_data(settings: dict) -> None:
    """Write the manifests and trial lists, unless ``skip_prep``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not settings["skip_prep"]:
        is_trained = has_checkpoint(Path(settings["output_folder"]))
        run_on_main(prepare, args=[Settings.from_hparams(settings), Path(settings["manifest_folder"]), is_trained])


def fit(hparams_file: str, text: str, overrides: str, run_opts: sb.utils.run_opts.RunOptions) -> None:
    """Train in this process, perhaps one of several."""
    run_opts = init_processes(run_opts)
    with readable_errors(hparams_file):
        hparams = load_hyperpyyaml(text, overrides)
    folder = Path(hparams["output_folder"])
    run_on_main(write_hparams, args=[text, overrides, folder])  # whole: SpeechBrain's own file may be cut by a kill
    sb.create_experiment_directory(str(folder))
    train_data, valid_data, label_encoder = dataio_prep(hparams)
    if hparams["sentence_len"]:  # not before a teacher embeds whole utterances, whose memory would be kept too
        keep_freed_memory()
    brain = make_brain(hparams, run_opts, len(label_encoder))
    columns = train_data.data.columns
    loading = train_loader_options(hparams, columns["spk_id"], brain.device, columns["wav"])
    logger.info("%s", describe_processes(loading["num_workers"]))
    brain.fit(
        brain.hparams.epoch_counter,
        train_data,
        valid_data,
        train_loader_kwargs=loading,
        valid_loader_kwargs={"batch_size": 1, "num_workers": loading["num_workers"]},
    )


def dataio_prep(hparams: dict) -> tuple[DynamicItemDataset, DynamicItemDataset | list, CategoricalEncoder]:
    """Return training data, validation data (empty without held-out speakers) and the encoder of training speakers.

    At each further speed a speaker is another class.
    """
    manifests, roots = Path(hparams["manifest_folder"]), data_roots(hparams["corpus"], hparams["data_folder"])
    manifest = read_utterances(manifests / "train.csv", roots)
    augmentation, rate = hparams["augmentation"], hparams["sample_rate"]
    store = None
    if hparams["keep_decoded"]:
        folder = Path(hparams["decoded_folder"] or manifests)
        stored = (folder, ManifestRows(manifest), rate, augmentation.speeds)
        run_on_main(AudioStore.write, args=stored)
        store = AudioStore(*stored)
    manifest = several_crops(manifest, hparams["crop_every_s"], hparams["sentence_len"])
    augmentation.prepare(manifest)
    crops = CropReader(hparams["sentence_len"], rate, hparams["seed"], augmentation, hparams["epoch_counter"], store)
    attach_teacher(hparams, crops)
    speakers = sorted(manifest["spk_id"].unique())
    label_encoder = CategoricalEncoder()
    label_encoder.update_from_iterable((name, speed) for speed in range(len(augmentation.speeds)) for name in speakers)
    label_encoder.expect_len(len(speakers) * len(augmentation.speeds))

    @takes("id", "wav", "start", "stop", "duration", "spk_id")
    @provides("sig", "spk_id_encoded")
    def crop_and_label(utt_id: str, wav: str, start: str, stop: str, duration: float, spk_id: str):
        yield crops(utt_id, wav, int(start), int(stop), duration, spk_id)  # (samples,)
        yield label_encoder.encode_label_torch((spk_id, crops.speed_number(utt_id)))  # (1,)

    @takes("wav", "start", "stop")
    @provides("sig")
    def whole_utterance(wav: str, start: str, stop: str) -> torch.Tensor:
        samples = read_audio(wav, rate, int(start), int(stop))
        return torch.from_numpy(repeat_to(samples, round(MIN_DURATION_S * rate)))  # (samples,)

    train_data = DynamicItemDataset(ManifestRows(manifest))
    add_dynamic_item([train_data], crop_and_label)
    set_output_keys([train_data], ["id", "sig", "spk_id_encoded"])
    if not (manifests / "valid.csv").is_file():
        return train_data, [], label_encoder
    valid_data = DynamicItemDataset(ManifestRows(read_utterances(manifests / "valid.csv", roots)))
    add_dynamic_item([valid_data], whole_utterance)
    set_output_keys([valid_data], ["id", "sig"])
    return train_data, valid_data, label_encoder


def make_brain(hparams: dict, run_opts: sb.utils.run_opts.RunOptions, num_classes: int) -> SpeakerBrain:
    """Build the head, if it has a weight, and the Brain."""
    network, head = hparams["embedding_model"], torch.nn.Identity()
    if not hparams["head_weight"] and not hparams["embedding_costs"]:
        raise InputError("head_weight 0 and no embedding_costs: nothing to train with; give one of them")
    if hparams["head_weight"]:
        head = hparams["classifier"](out_neurons=num_classes)
        hparams["checkpointer"].add_recoverable("classifier", head)
    hparams["modules"]["classifier"] = head
    hparams["precision"] = resolve_precision(hparams["precision"], run_opts["device"])
    if hparams["pretrained"]:  # also in a resumed run: its checkpoint, loaded later, might be broken
        start_from(Path(hparams["pretrained"]), network, head, Path(hparams["output_folder"]))
    return SpeakerBrain(hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"])


def print_results(folder: Path, arguments: str) -> None:
    """Print the best EER, the run folder and the next command."""
    known = [row for row in read_epochs(folder) if not math.isnan(row["eer"])]
    if known:
        best = min(known, key=lambda row: row["eer"])
        print(f"Best EER on held-out speakers: {100 * best['eer']:.2f} % in epoch {best['epoch']:.0f} of {len(known)}")
    else:
        print("Trained on all speakers: the last checkpoint is used")
    print(f"Run folder: {folder} (curves.png, metrics.csv, save/)\nNext: python eval_eer.py {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
