"""Time training steps and two peers on the same data, and print one table: utterances/s and processor time.

    python benchmarks/training.py [--corpus NAME --data_folder PATH] [--rounds 2] [--steps 2] [--batch_size 128]

- ours: a step of ``train.py hparams/ecapa_small.yaml``, reading of the audio included;
- SpeechBrain: the same network, features, head, batches and crops in a plain SpeechBrain loop as in its VoxCeleb
  recipe: fp32, its reading of audio, its defaults;
- original: that loop with network and features of the original project (``hparams/ablations/network/original.yaml``),
  on whole utterances padded to the longest of the batch.

Data: speechocean762 in ``../shared/corpora`` if it is there, else the demo voices. Each round runs every job once in
its own process, so load on a shared machine affects all alike; the first step of a process does not count. The peers
wait without spinning, as ours does, which helps them on a busy machine.
"""

import argparse
import itertools
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder

import train
from voice_biometrics.ablation.score_run import describe_hardware
from voice_biometrics.common.manifest import data_roots
from voice_biometrics.evaluation.trained_run import with_speechbrain_class
from voice_biometrics.experiment.hparams import Run, read_command_line
from voice_biometrics.training.dataio import train_loader_options
from voice_biometrics.training.optimisation import keep_freed_memory

JOBS = {
    "ours": "hparams/ecapa_small.yaml",
    "SpeechBrain": "hparams/ecapa_small.yaml",
    "original": "hparams/ablations/network/original.yaml",
}
SPEECHOCEAN762 = Path("../shared/corpora/speechocean762")


class PlainBrain(sb.Brain):
    """SpeechBrain's loop with nothing added to it."""

    def compute_forward(self, batch, stage: sb.Stage) -> torch.Tensor:
        """Return the head's output (utterances, 1, speakers)."""
        batch = batch.to(self.device)
        waves, lengths = batch.sig
        features = self.modules.mean_var_norm(self.modules.compute_features(waves), lengths)
        return self.modules.classifier(self.modules.embedding_model(features))

    def compute_objectives(self, predictions: torch.Tensor, batch, stage: sb.Stage) -> torch.Tensor:
        """Return the mean loss of a batch."""
        return self.hparams.compute_cost(predictions, batch.spk_id_encoded.data)


@dataclass
class PlainReader:
    """Reads a random crop of ``duration_s`` (0: the whole utterance) with SpeechBrain's ``read_audio``."""

    duration_s: float
    sample_rate: int

    def __call__(self, wav: str, start: str, stop: str) -> torch.Tensor:
        """Return float32 (samples,), a shorter utterance being repeated."""
        start, stop = int(start), int(stop)
        length = round(self.duration_s * self.sample_rate) or stop - start
        start = random.randint(start, max(start, stop - length))
        wave = sb.dataio.dataio.read_audio({"file": wav, "start": start, "stop": min(stop, start + length)})
        return wave.repeat(-(-length // len(wave)))[:length]


@dataclass
class Measured:
    """Per counted step: seconds, processor seconds; and the largest memory of a process, GiB."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_gib: float = 0.0

    def add(self, other: "Measured") -> None:
        """Take in the steps of another process."""
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.peak_gib = max(self.peak_gib, other.peak_gib)


def our_loop(run: Run) -> tuple[sb.Brain, DynamicItemDataset, dict]:
    """Return what train.py trains with, its data and its hparams."""
    keep_freed_memory()
    hparams = run.build()
    train.prepare_data(hparams)
    dataset, _, label_encoder = train.dataio_prep(hparams)
    return train.make_brain(hparams, run.run_opts, len(label_encoder)), dataset, hparams


def plain_loop(run: Run) -> tuple[sb.Brain, DynamicItemDataset, dict]:
    """Return a plain SpeechBrain loop, its data and its hparams."""
    hparams = replace(run, text=with_speechbrain_class(run.text)).build()
    train.prepare_data(hparams)
    dataset, num_speakers = plain_dataset(hparams)
    modules = hparams["modules"] | {"classifier": hparams["classifier"](out_neurons=num_speakers)}
    return PlainBrain(modules, hparams["opt_class"], {"compute_cost": hparams["compute_cost"]}), dataset, hparams


def plain_dataset(hparams: dict) -> tuple[DynamicItemDataset, int]:
    """Return the training part as SpeechBrain's recipe reads it, and the number of speakers."""
    manifest = Path(hparams["manifest_folder"]) / "train.csv"
    dataset = DynamicItemDataset.from_csv(str(manifest), data_roots(hparams["corpus"], hparams["data_folder"]))
    reader, encoder = PlainReader(hparams["sentence_len"], hparams["sample_rate"]), CategoricalEncoder()
    dataset.add_dynamic_item(reader, takes=["wav", "start", "stop"], provides="sig")
    dataset.add_dynamic_item(encoder.encode_label_torch, takes="spk_id", provides="spk_id_encoded")
    encoder.update_from_didataset(dataset, output_key="spk_id")
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    return dataset, len(encoder)


def time_steps(brain: sb.Brain, dataset: DynamicItemDataset, hparams: dict, num_steps: int) -> Measured:
    """Train one step, then time ``num_steps`` more, from the reading of the audio to the new weights."""
    loading = train_loader_options(hparams, [row["spk_id"] for row in dataset.data.values()], brain.device)
    batches = itertools.chain.from_iterable(itertools.repeat(brain.make_dataloader(dataset, sb.Stage.TRAIN, **loading)))
    brain.on_fit_start()
    hparams["epoch_counter"].current = 1
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    weights = next(brain.modules["embedding_model"].parameters())
    first_weights = weights.detach().clone()
    measured = Measured()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for batch in itertools.islice(batches, 1 + num_steps):
        brain.step += 1
        brain.fit_batch(batch)
        before, (wall_s, cpu_s) = (wall_s, cpu_s), (time.perf_counter(), time.process_time())
        measured.wall_s.append(wall_s - before[0])
        measured.cpu_s.append(cpu_s - before[1])
    if torch.equal(weights, first_weights):
        sys.exit("the network has not learned: the steps were not those of training")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Measured(measured.wall_s[1:], measured.cpu_s[1:], peak_gib)


def run_job(options: argparse.Namespace) -> None:
    """Time one job in this process and print the measurement as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        given = [JOBS[options.job], "--corpus", options.corpus, "--data_folder", options.data_folder]
        given += ["--output_folder", folder, "--valid_speakers", "0", "--device", "cpu"]
        run = read_command_line([*given, "--batch_size", str(options.batch_size)], __doc__)
        loop = our_loop(run) if options.job == "ours" else plain_loop(run)
        print(json.dumps(vars(time_steps(*loop, options.steps))))


def measure(job: str, options: argparse.Namespace) -> Measured:
    """Run a job in a process of its own."""
    print(f"running {job}", file=sys.stderr)
    command = [sys.executable, __file__, "--job", job]
    for name in ("corpus", "data_folder", "steps", "batch_size"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def print_table(options: argparse.Namespace) -> None:
    """Run all rounds and print the table with what it was made with."""
    print(f"command: python benchmarks/training.py --rounds {options.rounds} --steps {options.steps}")
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    print(f"data: {options.corpus}; batches of {options.batch_size}; {versions}")
    processor = describe_hardware("cpu", torch.get_num_threads())
    print(f"hardware: {processor} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; no GPU used")
    found = {job: Measured() for job in JOBS}
    for _ in range(options.rounds):
        for job, measured in found.items():
            measured.add(measure(job, options))
    print(f"medians of {options.rounds * options.steps} steps\n")
    print("| loop | utterances/s | ours: faster by | CPU ms/utterance | less by | peak |\n|---|---|---|---|---|---|")
    ours = found["ours"]
    for job, measured in found.items():
        rate = options.batch_size / statistics.median(measured.wall_s)
        cpu_ms = 1000 * statistics.median(measured.cpu_s) / options.batch_size
        faster = statistics.median(measured.wall_s) / statistics.median(ours.wall_s)
        less = statistics.median(measured.cpu_s) / statistics.median(ours.cpu_s)
        print(f"| {job} | {rate:.1f} | {faster:.2f} x | {cpu_ms:.1f} | {less:.2f} x | {measured.peak_gib:.1f} GiB |")


def main() -> None:
    """Print the table, or, as a child process, run one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="as of train.py; speechocean762 or demo_voices unless named")
    parser.add_argument("--data_folder", help="the folder of the corpus")
    parser.add_argument("--rounds", type=int, default=2, help="how often each job is started")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a start")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--job", choices=JOBS, help="run one job only and print its steps as JSON")
    options = parser.parse_args()
    if options.data_folder is None:
        found = SPEECHOCEAN762.is_dir()
        options.corpus = "speechocean762" if found else "demo_voices"
        options.data_folder = str(SPEECHOCEAN762) if found else "data/demo_voices"
    options.corpus = options.corpus or "speaker_folders"
    if options.job:
        run_job(options)
    else:
        print_table(options)


if __name__ == "__main__":
    main()
