"""Error rates with energy below the voice: a constant offset, or rumble of 1 to 30 Hz, on all recordings.

    python benchmarks/offset.py --model pretrained --manifest RUN/manifests/valid.csv \
        --corpus speechocean762,librispeech,common_voice --data_folder A,B,C --speakers speechocean762

Prints the EER over all pairs, and FAR and FRR at the threshold of FAR 1 % without such energy. Speech peaks at 0.5.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.metrics.error_rates import error_rates

LEVEL, PEAK, MAX_FAR = 0.02, 0.5, 0.01
NUM_TONES = 5  # of the rumble


def nothing(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add no energy."""
    return np.zeros(times_s.size)


def offset(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a constant offset (samples,)."""
    return np.full(times_s.size, LEVEL)


def rumble(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return tones of 1 to 30 Hz (samples,) with an RMS of ``LEVEL``."""
    tones = zip(rng.uniform(1, 30, NUM_TONES), rng.uniform(0, 2 * np.pi, NUM_TONES), strict=True)
    return LEVEL * np.sqrt(2 / NUM_TONES) * sum(np.sin(2 * np.pi * hz * times_s + phase) for hz, phase in tones)


def main() -> None:
    """Embed the utterances with each addition and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("model", "pretrained"), ("manifest", None), ("corpus", None), ("data_folder", None)):
        parser.add_argument(f"--{name}", default=default, required=default is None)
    parser.add_argument("--speakers", default="", help="beginning of their names; all if not given")
    options = parser.parse_args()
    table = read_utterances(Path(options.manifest), data_roots(options.corpus, options.data_folder))
    table = table[table["spk_id"].str.startswith(options.speakers)]
    embedder = Embedder(read_model_folder(Path(options.model)))
    first, second = np.triu_indices(len(table), 1)
    is_target = table["spk_id"].to_numpy()[first] == table["spk_id"].to_numpy()[second]
    threshold = None
    for addition in (nothing, offset, rumble):
        embeddings = np.stack([embed(embedder, row, number, addition) for number, row in enumerate(table.itertuples())])
        scores = (embeddings @ embeddings.T)[first, second]
        threshold = np.quantile(scores[~is_target], 1 - MAX_FAR) if threshold is None else threshold
        eer = error_rates(scores, is_target).equal_error_rate()[0]
        far, frr = np.mean(scores[~is_target] >= threshold), np.mean(scores[is_target] < threshold)
        print(f"{addition.__name__:8} EER {100 * eer:.2f} %, FAR {100 * far:.2f} %, FRR {100 * frr:.2f} %", flush=True)


def embed(embedder: Embedder, row, number: int, addition) -> np.ndarray:
    """Return the unit embedding (dims,) of one utterance with an addition drawn from its number."""
    rate = embedder.sample_rate
    samples = read_audio(row.wav, rate, row.start, row.stop)
    samples = PEAK * samples / np.abs(samples).max()
    samples = samples + addition(np.arange(samples.size) / rate, np.random.default_rng(number))
    embedding = np.ravel(embedder(samples.astype(np.float32)))
    return embedding / np.linalg.norm(embedding)


if __name__ == "__main__":
    main()
