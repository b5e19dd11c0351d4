"""Count how alike the forms of a model are: run folder, ONNX fp32, SpeechBrain's layout; and what int8 costs.

    python benchmarks/parity.py RUN_FOLDER MODEL_FOLDER --data_folder /path/to/corpus

Embeds the run's held-out utterances, and real and synthetic speech of 0.5 to 60 s (real: those utterances one after
the other), by each form; prints the smallest cosine to the run folder's embedding over all, and the EER of each form on
the held-out trials, or on those of the first --speakers speakers.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
import torch
from speechbrain.inference.speaker import SpeakerRecognition

from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.evaluation.trained_run import TrainedRun
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import score_trials
from voice_biometrics.scoring.embeddings import MIN_DURATION_S, embed

DURATIONS_S = np.geomspace(0.5, 60.0, 25)
REFERENCE = "run folder"
Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Print a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data_folder")
    parser.add_argument("--speakers", type=int, help="held-out speakers for the EERs (default: all)")
    options = parser.parse_args()
    run = TrainedRun(options.run, options.data_folder)
    manifest, trials = held_out(run, options.speakers)
    speech = [read_audio(*row) for row in zip(
        manifest["wav"], [run.sample_rate] * len(manifest), manifest["start"], manifest["stop"], strict=True
    )]  # fmt: skip
    others = lengths(np.concatenate(speech), run.sample_rate)
    forms = forms_of(run, options.model)
    found = {name: embed_all([*speech, *others], form, name) for name, form in forms.items()}
    print(f"{len(manifest)} held-out utterances, {len(others)} cuts of 0.5 to 60 s; {len(trials):,} trials")
    for name, embeddings in found.items():
        cosines = rows_cosines(embeddings, found[REFERENCE])
        eer = eer_of(embeddings[: len(manifest)], manifest, trials)
        print(f"{name:<14} smallest cosine {cosines.min():.7f}   EER {100 * eer:.4f} %")


def held_out(run: TrainedRun, num_speakers: int | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return manifest and trials of the run's held-out speakers, of the first few if so asked."""
    manifest, trials = run.held_out().manifest, run.held_out().trials
    kept = manifest[manifest["spk_id"].isin(sorted(manifest["spk_id"].unique())[:num_speakers])]
    ids = set(kept["ID"])
    return kept.reset_index(drop=True), trials[trials["enrol_id"].isin(ids) & trials["test_id"].isin(ids)]


def lengths(speech: np.ndarray, sample_rate: int, durations_s: np.ndarray = DURATIONS_S) -> list[np.ndarray]:
    """Return a cut of ``speech`` (samples,) and a synthetic voice of each duration, float32 (samples,)."""
    rng = np.random.default_rng(0)
    made = []
    for duration_s in durations_s:
        num_samples = round(duration_s * sample_rate)
        start = rng.integers(max(speech.size - num_samples, 1))
        made += [np.resize(speech[start : start + num_samples], num_samples), synthetic(num_samples, sample_rate, rng)]
    return made


def synthetic(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a buzz of gliding pitch in syllables, with some noise, float32 (samples,)."""
    time_s = np.arange(num_samples) / sample_rate
    pitch_hz = rng.uniform(80, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate
    buzz = sum(np.sin(number * phase) / number for number in range(1, 20))
    syllables = 1.1 + np.sin(2 * np.pi * rng.uniform(2, 5) * time_s)
    return (0.1 * buzz * syllables + 0.005 * rng.standard_normal(num_samples)).astype(np.float32)


def forms_of(run: TrainedRun, model_folder: Path) -> dict[str, Embed]:
    """Return the forms of the model by name: each from samples (samples,) to an embedding (dims,)."""
    model, layout = read_model_folder(model_folder), str(model_folder / "speechbrain")
    stock = SpeakerRecognition.from_hparams(source=layout, savedir=layout, run_opts={"device": "cpu"})
    least = round(MIN_DURATION_S * run.sample_rate)

    def batch(samples: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(repeat_to(samples, least))[None]

    return {
        REFERENCE: lambda samples: embed(run.modules, batch(samples))[0],
        "ONNX fp32": Embedder(model, "fp32"),
        "speechbrain/": lambda samples: stock.encode_batch(batch(samples))[0, 0].numpy(),
        "ONNX int8": Embedder(model, "int8"),
    }


def embed_all(waves: list[np.ndarray], form: Embed, name: str) -> np.ndarray:
    """Return the embeddings (waves, dims) float64."""
    return np.stack([form(wave) for wave in tqdm(waves, name, unit="utt")]).astype(np.float64)


def rows_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one table to the same row of the other, (rows,)."""
    return (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)


def eer_of(embeddings: np.ndarray, manifest: pd.DataFrame, trials: pd.DataFrame) -> float:
    """Return the EER of cosine scores on the trials, a fraction."""
    scored = score_trials(embeddings, pd.Index(manifest["ID"]), trials)
    return equal_error_rate(scored["score"].to_numpy(), scored["target"].to_numpy() == 1)[0]


if __name__ == "__main__":
    main()
