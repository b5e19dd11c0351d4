"""EER of model folders on held-out speakers, by corpus and condition: the table in the README.

    python benchmarks/held_out.py pretrained OTHER_MODEL --manifest RUN/manifests/valid.csv \
        --corpus speechocean762,librispeech,common_voice --data_folder A,B,C

Cosine scores of all pairs of a corpus, with 95 % intervals over speakers. Last row: three utterances of each speaker
enrolled (drawn with seed 0), all others tested.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.evaluation.conditions import CLEAN, Condition, conditions_named
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.metrics.bootstrap import Eer, Interval, SpeakerBootstrap
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.metrics.formatting import in_per_cent
from voice_biometrics.scoring.cosine import normalise_lengths, score_trials
from voice_biometrics.scoring.enrolment import draw_enrolment, with_models

CONDITIONS = ("channel", "telephone", "noise:10")


def main() -> None:
    """Print a line for each corpus and condition, a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for name in ("manifest", "corpus", "data_folder"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    embedders = [Embedder(read_model_folder(path)) for path in options.models]
    table = read_utterances(Path(options.manifest), data_roots(options.corpus, options.data_folder))
    for corpus in options.corpus.split(","):
        part = table[table["spk_id"].str.startswith(corpus)].reset_index(drop=True)
        if part.empty:
            continue
        print(f"{corpus}: {part['spk_id'].nunique()} speakers, {len(part)} utterances", flush=True)
        clean = []
        for condition in [CLEAN, *(found for name in CONDITIONS for found in conditions_named(name))]:
            embedded = [embed(embedder, part, condition) for embedder in embedders]
            clean = clean or embedded
            show(condition.name, [all_pairs(embeddings, part["spk_id"].to_numpy()) for embeddings in embedded])
        show("three enrolled", [three_enrolled(embeddings, part) for embeddings in clean])


def show(name: str, eers: list[Interval | float]) -> None:
    """Print a line, in per cent."""
    print(f"  {name:18}" + "".join(f"{in_per_cent(eer):>26}" for eer in eers), flush=True)


def embed(embedder: Embedder, table: pd.DataFrame, condition: Condition) -> np.ndarray:
    """Return unit embeddings (utterances, dims) under a condition."""

    def read(row) -> np.ndarray:
        samples = read_audio(row.wav, embedder.sample_rate, row.start, row.stop)
        return condition(samples, embedder.sample_rate, row.ID).astype(np.float32)

    return normalise_lengths(embedder.embed_many([partial(read, row) for row in table.itertuples()], 1))


def all_pairs(embeddings: np.ndarray, speakers: np.ndarray) -> Interval:
    """Return the EER over all pairs of utterances, with its interval over speakers."""
    first, second = np.triu_indices(len(speakers), 1)
    bootstrap = SpeakerBootstrap(speakers[first] == speakers[second], speakers[first], speakers[second])
    return bootstrap.intervals((embeddings @ embeddings.T)[first, second], {"eer": Eer()})["eer"]


def three_enrolled(embeddings: np.ndarray, table: pd.DataFrame) -> float:
    """Return the EER of averages of three recordings against all others."""
    enrolment, trials = draw_enrolment(table, 3, seed=0, name="held-out speakers")
    both, utterances = with_models(embeddings, table, enrolment)
    scores = score_trials(both, pd.Index(utterances["ID"]), trials)
    return equal_error_rate(scores["score"].to_numpy(), scores["target"].to_numpy())[0]


if __name__ == "__main__":
    main()
