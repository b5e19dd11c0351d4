"""Embed the utterances of a manifest: ``python embed.py MODEL --manifest FILE [options]``.

    python embed.py pretrained --manifest utterances.csv --data_folder /path/to/corpus
    python embed.py results/ecapa_small/voxceleb/1986 --manifest utterances.csv --shard $SLURM_ARRAY_TASK_ID/16

MODEL is a model folder, which needs no PyTorch, or the run folder of train.py (its best checkpoint).
  --manifest FILE          utterances (ID, duration, wav, start, stop, spk_id); memory does not grow with their number
  --data_folder A,B        folders of $data_root in the manifest, and --corpus a,b where corpora are joined
  --output FOLDER          default: embeddings/<name of the manifest>
  --shard I/N              the I-th of N parts, for N processes or machines; default: 1/1
  --precision int8         of a model folder; default: fp32

Writes Parquet files of 2,000 utterances (ID, spk_id, duration, embedding). The same command, with any --shard, resumes
interrupted work: it writes the missing files. Read them with eval_eer.py --embeddings FOLDER.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from voice_biometrics.common.audio import read_audio
from voice_biometrics.common.errors import InputError, OptionParser, tell_input_errors
from voice_biometrics.common.manifest import data_roots
from voice_biometrics.scoring.embedding_parts import Embed, shard_named, write_parts


@tell_input_errors
def main(arguments: list[str]) -> None:
    """Embed a share of a manifest."""
    options = parse_options(arguments)
    written, found = embed_shard(options)
    print(
        f"Embeddings: {options.output} ({written} files written, {found} already there)\n"
        f"Next, when all shards are done: python eval_eer.py --embeddings {options.output}"
    )


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = OptionParser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    for name, default in (("corpus", ""), ("data_folder", ""), ("shard", "1/1"), ("precision", "fp32")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    options.output = options.output or Path("embeddings", options.manifest.stem)
    return options


def embed_shard(options: argparse.Namespace) -> tuple[int, int]:
    """Embed a share of a manifest; return the numbers of files written and already there. Raises InputError."""
    shard = shard_named(options.shard)
    load = trained_run if (options.model / "hyperparams.yaml").is_file() else model_folder
    embed, fingerprint, roots = load(options)
    return write_parts(options.manifest, roots, options.output, fingerprint, embed, shard)


def model_folder(options: argparse.Namespace) -> tuple[Embed, str, dict[str, str]]:
    """Load a model folder: how to embed, the fingerprint of the model, and the folders of the corpora."""
    from voice_biometrics.inference.embedder import Embedder
    from voice_biometrics.inference.model_folder import read_model_folder

    embedder = Embedder(read_model_folder(options.model), options.precision)

    def embed(rows: pd.DataFrame, bar: tqdm) -> np.ndarray:
        cuts = zip(rows["wav"], rows["start"], rows["stop"], strict=True)
        readers = [partial(read_audio, wav, embedder.sample_rate, start, stop) for wav, start, stop in cuts]
        return embedder.embed_many(readers, on_each=bar.update)

    roots = data_roots(options.corpus or "corpus", options.data_folder) if options.data_folder else {}
    return embed, embedder.entry.fingerprint, roots


def trained_run(options: argparse.Namespace) -> tuple[Embed, str, dict[str, str]]:
    """Load the best checkpoint of a run folder; returns as ``model_folder``."""
    from voice_biometrics.evaluation.trained_run import TrainedRun

    if options.precision != "fp32":
        raise InputError(f"--precision {options.precision}: goes with a model folder; export the run first")
    run = TrainedRun(options.model)
    corpus, data_folder = (getattr(options, key) or run.settings[key] for key in ("corpus", "data_folder"))

    def embed(rows: pd.DataFrame, bar: tqdm) -> np.ndarray:
        return run.embed(rows, progress=bar)

    return embed, run.fingerprint(), data_roots(corpus, data_folder)


if __name__ == "__main__":
    main(sys.argv[1:])
