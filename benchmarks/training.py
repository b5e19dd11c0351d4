"""Time training and its peers on the same data, idle and beside a busy core: one table, in less than five minutes.

    python benchmarks/training.py [--corpus NAME --data_folder PATH] [--seconds 5] [--batch_size 128] [--jobs NAME ...]

- ours: ``train.py hparams/ecapa_small.yaml`` as it is, a process per core, and in one process of one thread; a step
  takes in the reading of the audio;
- SpeechBrain: the same network, features, head, batches and crops in a plain SpeechBrain loop as in its VoxCeleb
  recipe: fp32, its reading of audio, its defaults; with one thread; and at its best, a process per core, for which its
  synchronised BatchNorm, which needs GPUs, is left out;
- original: that loop with network and features of the original project (``hparams/ablations/network/original.yaml``),
  on whole utterances padded to the longest of the batch (batches of 32);
- embedding: whole utterances, as ``eval_eer.py`` embeds them, with a thread per core, and with one.

Data: speechocean762 in ``../shared/corpora`` if it is there, else the demo voices. Every job runs in separate
processes, first alone, then beside one process that keeps a core busy. The first step is not counted; steps are timed
for ``--seconds``, at least one. The peers' threads spin while they wait, as they do by default.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.distributed import if_main_process
from torch.nn.parallel import DistributedDataParallel

import train
from voice_biometrics.ablation.score_run import describe_hardware
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.evaluation.trained_run import with_speechbrain_class
from voice_biometrics.experiment.hparams import Run, read_command_line
from voice_biometrics.scoring.embeddings import FRONT_TO_EMBEDDING, embed_manifest
from voice_biometrics.training.brain import init_processes
from voice_biometrics.training.dataio import train_loader_options
from voice_biometrics.training.optimisation import keep_freed_memory
from voice_biometrics.training.processes import (
    MIN_CROPS,
    choose_num_processes,
    gathered,
    process_number,
    run_in_processes,
)

OURS, ORIGINAL = "hparams/ecapa_small.yaml", "hparams/ablations/network/original.yaml"
SPINS = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own; our package makes threads sleep
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class Job(NamedTuple):
    """What to time."""

    loop: str  # ours, plain or embedding
    hparams: str
    processes: str  # auto: one per core
    environment: dict[str, str] = {}
    batch_size: int | None = None


JOBS = {
    "ours": Job("ours", OURS, "auto"),
    "ours, 1 thread": Job("ours", OURS, "1", ONE_THREAD),
    "SpeechBrain": Job("plain", OURS, "1", SPINS),
    "SpeechBrain, 1 thread": Job("plain", OURS, "1", ONE_THREAD),
    "SpeechBrain, a process per core": Job("plain", OURS, "auto", SPINS),
    "original": Job("plain", ORIGINAL, "1", SPINS, batch_size=32),
    "embedding": Job("embedding", OURS, "1"),
    "embedding, 1 thread": Job("embedding", OURS, "1", ONE_THREAD),
}
NUM_EMBEDDED = 40  # utterances, at once
SPEECHOCEAN762 = Path("../shared/corpora/speechocean762")


class PlainBrain(sb.Brain):
    """SpeechBrain's loop with nothing added to it, but able to run in several processes on a CPU."""

    def _wrap_distributed(self) -> None:
        if self.distributed_launch:
            for name in ("embedding_model", "classifier"):
                self.modules[name] = DistributedDataParallel(self.modules[name])

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
    """Per counted step: seconds, processor seconds of all processes; and the memory of all processes, GiB."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_gib: float = 0.0
    processes: int = 1
    threads: int = 1
    utterances: int = 0  # of a step


def our_loop(run: Run) -> tuple[sb.Brain, DynamicItemDataset, dict, dict]:
    """Return what train.py trains with, its data, its hparams and the options of its loader."""
    keep_freed_memory()
    hparams = run.build()
    dataset, _, label_encoder = train.dataio_prep(hparams)
    brain = train.make_brain(hparams, init_processes(run.run_opts), len(label_encoder))
    speakers = [row["spk_id"] for row in dataset.data.values()]
    return brain, dataset, hparams, train_loader_options(hparams, speakers, "cpu")


def plain_loop(run: Run) -> tuple[sb.Brain, DynamicItemDataset, dict, dict]:
    """Return a plain SpeechBrain loop, its data, its hparams and the options of its loader."""
    run_opts = init_processes(run.run_opts)
    hparams = replace(run, text=with_speechbrain_class(run.text)).build()
    dataset, num_speakers = plain_dataset(hparams)
    modules = hparams["modules"] | {"classifier": hparams["classifier"](out_neurons=num_speakers)}
    brain = PlainBrain(modules, hparams["opt_class"], {"compute_cost": hparams["compute_cost"]}, run_opts)
    options = {"shuffle": True, "drop_last": True, "batch_size": hparams["batch_size"] // process_number()[1]}
    return brain, dataset, hparams, options


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


def time_steps(loop: Callable, run: Run, seconds: float) -> Measured:
    """Train one step, then time further ones for some seconds, from the reading of the audio to the new weights."""
    brain, dataset, hparams, loading = loop(run)
    batches = itertools.chain.from_iterable(itertools.repeat(brain.make_dataloader(dataset, sb.Stage.TRAIN, **loading)))
    brain.on_fit_start()
    hparams["epoch_counter"].current = 1
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    weights = next(brain.modules["embedding_model"].parameters())
    first_weights = weights.detach().clone()
    measured = Measured(
        processes=process_number()[1], threads=torch.get_num_threads(), utterances=run.settings["batch_size"]
    )
    for batch in batches:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        brain.step += 1
        brain.fit_batch(batch)
        measured.wall_s.append(time.perf_counter() - wall_s)
        measured.cpu_s.append(time.process_time() - cpu_s)
        if gathered(sum(measured.wall_s[1:]) >= seconds and len(measured.wall_s) > 1)[0]:
            break
    if torch.equal(weights, first_weights):
        sys.exit("the network has not learned: the steps were not those of training")
    return measured


def time_embedding(run: Run, seconds: float) -> Measured:
    """Embed a few utterances again and again for some seconds."""
    hparams = run.build()
    manifest = read_utterances(
        Path(hparams["manifest_folder"]) / "train.csv", data_roots(hparams["corpus"], hparams["data_folder"])
    )[:NUM_EMBEDDED]
    modules = torch.nn.ModuleDict({name: hparams[name] for name in FRONT_TO_EMBEDDING})
    measured = Measured(threads=torch.get_num_threads(), utterances=len(manifest))
    while sum(measured.wall_s[1:]) < seconds or len(measured.wall_s) < 2:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        embed_manifest(modules, manifest, hparams["sample_rate"], "cpu")
        measured.wall_s.append(time.perf_counter() - wall_s)
        measured.cpu_s.append(time.process_time() - cpu_s)
    return measured


def run_job(options: argparse.Namespace) -> None:
    """Time one job in this process and those that it starts, and print the measurement as JSON."""
    job = JOBS[options.job]
    with tempfile.TemporaryDirectory() as folder:
        given = [job.hparams, "--corpus", options.corpus, "--data_folder", options.data_folder, "--device", "cpu"]
        given += ["--output_folder", folder, "--manifest_folder", options.manifests, "--processes", job.processes]
        run = read_command_line([*given, "--batch_size", str(job.batch_size or options.batch_size)], __doc__)
        num_processes = choose_num_processes(run.settings, MIN_CROPS, "cpu")
        run_in_processes(num_processes, measure_here, job, run, options.seconds)


def measure_here(job: Job, run: Run, seconds: float) -> None:
    """Time a job in this process and the others of it; the first prints the measurement as JSON."""
    if job.loop == "embedding":
        measured = time_embedding(run, seconds)
    else:
        measured = time_steps(our_loop if job.loop == "ours" else plain_loop, run, seconds)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    parts = gathered((measured.cpu_s, peak_gib))
    measured.cpu_s = [sum(seconds) for seconds in zip(*(cpu_s for cpu_s, _ in parts), strict=True)]
    measured.peak_gib = sum(peak for _, peak in parts)
    if if_main_process():
        print(json.dumps(vars(measured)), flush=True)


def measure(name: str, options: argparse.Namespace, manifests: Path) -> Measured:
    """Run a job in a separate process, and return its counted steps."""
    command = [sys.executable, __file__, "--job", name, "--manifests", str(manifests)]
    for option in ("corpus", "data_folder", "seconds", "batch_size"):
        command += [f"--{option}", str(getattr(options, option))]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | JOBS[name].environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    measured = Measured(**json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{"))))
    measured.wall_s, measured.cpu_s = measured.wall_s[1:], measured.cpu_s[1:]
    print(f"{name}: {len(measured.wall_s)} steps, {1000 * statistics.median(measured.wall_s):.0f} ms", file=sys.stderr)
    return measured


def print_table(options: argparse.Namespace) -> None:
    """Run all jobs idle and beside a busy core, and print the table with what it was made with."""
    print(f"command: python benchmarks/training.py --seconds {options.seconds} --batch_size {options.batch_size}")
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    print(f"data: {options.corpus}; batches of {options.batch_size}; {versions}")
    cores = f"{describe_hardware('cpu', torch.get_num_threads())} of {os.cpu_count()} cores"
    print(f"hardware: {cores}; no GPU used; load before: {os.getloadavg()[0]:.1f}")
    found: dict[str, dict[str, Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        given = [OURS, "--corpus", options.corpus, "--data_folder", options.data_folder, "--valid_speakers", "0"]
        train.prepare_data(read_command_line([*given, "--manifest_folder", folder], __doc__).settings)
        for state in ("idle", "busy"):
            with busy_core() if state == "busy" else nullcontext():
                found[state] = {name: measure(name, options, Path(folder)) for name in options.jobs or JOBS}
    print("medians of the steps; utterances/s\n")
    print(
        "| loop | processes x threads | idle | ours: faster by | beside a busy core | ours: faster by | kept | "
        "CPU ms/utterance, idle | memory |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, idle in found["idle"].items():
        print(table_row(name, idle, found["busy"][name], {state: jobs.get("ours") for state, jobs in found.items()}))


def table_row(name: str, idle: Measured, busy: Measured, ours: dict[str, Measured | None]) -> str:
    """Return a row of the table."""
    rates = [part.utterances / statistics.median(part.wall_s) for part in (idle, busy)]
    times = ["", ""]
    if JOBS[name].loop != "embedding" and all(ours.values()):
        times = [
            f"{part.utterances / statistics.median(part.wall_s) / rate:.2f} x"
            for part, rate in zip(ours.values(), rates, strict=True)
        ]
    cpu_ms = 1000 * statistics.median(idle.cpu_s) / idle.utterances
    return (
        f"| {name} | {idle.processes} x {idle.threads} | {rates[0]:.1f} | {times[0]} | {rates[1]:.1f} | {times[1]} | "
        f"{100 * rates[1] / rates[0]:.0f} % | {cpu_ms:.1f} | {idle.peak_gib:.1f} GiB |"
    )


@contextmanager
def busy_core() -> Iterator[None]:
    """Context manager: run a process that never waits."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def main() -> None:
    """Print the table, or, as a child process, run one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="as of train.py; speechocean762 or demo_voices unless named")
    parser.add_argument("--data_folder", help="the folder of the corpus")
    parser.add_argument("--seconds", type=float, default=5.0, help="counted steps of a job")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, help="default: all")
    parser.add_argument("--manifests", help=argparse.SUPPRESS)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
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
