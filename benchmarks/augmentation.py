"""What augmentation costs beside a training step: ``python benchmarks/augmentation.py MANIFEST DATA_FOLDER [ROUNDS]``.

    python benchmarks/augmentation.py results/.../manifests/train.csv /path/to/corpus

Reads 128 crops of 3 s of the manifest's utterances: with each augmentation by itself for all crops, and with those of
augment_all.yaml in their shares. Beside them stand a training step of ecapa_small.yaml, and SpeechBrain's SpeedPerturb
(of all to 0.9) and AddNoise (white: other noise comes from a CSV).

Prints the processor time of each, all threads together, the least of ROUNDS (5) interleaved rounds, so that busy
neighbours disturb little. Where nothing is read while the network computes (num_workers 0), the share of the time that
passes is larger: reading has one thread, the step all.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import torch
from speechbrain.augment.time_domain import AddNoise, SpeedPerturb

import train
from voice_biometrics.augmentation.augment import Augmentation, masked
from voice_biometrics.experiment.hparams import read_command_line
from voice_biometrics.training.optimisation import keep_freed_memory, resolve_precision

NUM_CROPS = 128
SPEEDS = [0.9, 1.0, 1.1]
ALONE = {"room": {"room": 1}, "noise": {"noise": 1}, "channel": {"channel": 1}, "telephone": {"telephone": 1}}


def main(manifest: Path, data_folder: str, num_rounds: int) -> None:
    """Time all jobs in turn and print a table."""
    keep_freed_memory()
    hparams = read_command_line(["hparams/ablations/augmentation/augment_all.yaml"], __doc__).build()
    hparams |= {"manifest_folder": str(manifest.parent), "data_folder": data_folder}
    settings = {"reading alone": {}, "speeds": {"speeds": SPEEDS}} | ALONE
    jobs = {
        name: reading(hparams | {"augmentation": Augmentation(hparams["sample_rate"], 1, **chosen)})
        for name, chosen in settings.items()
    }
    jobs["all, in their shares"] = reading(hparams)
    waves = jobs["reading alone"](0)
    jobs |= on_a_batch(hparams, waves)
    least = dict.fromkeys(jobs, float("inf"))
    for epoch in range(num_rounds):
        for name, job in jobs.items():
            started = time.process_time()
            job(epoch)
            least[name] = min(least[name], time.process_time() - started)
    say(least)


def reading(hparams: dict) -> Callable:
    """Return a job that reads and augments the crops (utterances, samples) of an epoch."""
    started = time.perf_counter()
    dataset = train.dataio_prep(hparams)[0]
    print(f"prepared in {time.perf_counter() - started:.1f} s")
    rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:NUM_CROPS].tolist()

    def read(epoch: int) -> torch.Tensor:
        hparams["epoch_counter"].current = epoch
        return torch.stack([dataset[row]["sig"] for row in rows])

    return read


def on_a_batch(hparams: dict, waves: torch.Tensor) -> dict[str, Callable]:
    """Return the jobs that take a whole batch ``waves`` (utterances, samples)."""
    lengths = torch.ones(len(waves))
    speakers = torch.arange(len(waves))[:, None] % 100
    bf16 = resolve_precision("auto", "cpu") == "bf16"
    features = hparams["mean_var_norm"](hparams["compute_features"](waves), lengths)
    head = hparams["classifier"](out_neurons=100)
    perturb, add_noise = SpeedPerturb(hparams["sample_rate"], [90]), AddNoise()

    def step(epoch: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            features = hparams["mean_var_norm"](hparams["compute_features"](waves), lengths)
            embeddings = hparams["embedding_model"](features, lengths)
        hparams["compute_cost"](head(embeddings.float()), speakers).backward()

    return {
        "masking": lambda epoch: masked(features.clone(), hparams["feature_masks"], str(epoch)),
        "SpeechBrain's SpeedPerturb": lambda epoch: perturb(waves),
        "SpeechBrain's AddNoise": lambda epoch: add_noise(waves, lengths),
        "training step": step,
    }


def say(least: dict[str, float]) -> None:
    """Print the processor time of each job, and its share of a training step; reading is taken off where it is done."""
    step_s, plain_s = least.pop("training step"), least["reading alone"]
    print(f"training step of {NUM_CROPS} crops of 3 s: {1000 * step_s:.0f} ms of processor time")
    for name, seconds in least.items():
        own_s = seconds - plain_s if name in {"speeds", *ALONE, "all, in their shares"} else seconds
        print(f"{name:>27}: {1000 * own_s:6.0f} ms, {100 * own_s / step_s:5.1f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5)
