"""Time, memory and bytes at scale: a million utterances, 10^9 pairs, a million voices.

    python benchmarks/scale.py links FOLDER CORPUS      a folder per speaker with 1,000,000 links to the files of FOLDER
    python benchmarks/scale.py manifest FOLDER FILE     a manifest of 1,000,000 rows that share the files of FOLDER
    python benchmarks/scale.py parts EMBEDDINGS FOLDER  1,000,000 embeddings as embed.py writes them
    python benchmarks/scale.py pairs EMBEDDINGS         all pairs of 44,722 embeddings: 10^9; --exact: of 10,000, also
                                                        with stored scores
    python benchmarks/scale.py voices EMBEDDINGS        1,000,000 voices in FAISS and PostgreSQL, beside exact search
    python benchmarks/scale.py run COMMAND ...          peak memory and time of any command

EMBEDDINGS is a folder of embed.py; more embeddings than it has are made by adding noise. Results: docs/scaling.md.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from voice_biometrics.metrics.error_rates import error_rates
from voice_biometrics.scoring.all_pairs import all_pairs_histogram
from voice_biometrics.scoring.cosine import cosine_scores, normalise_lengths
from voice_biometrics.scoring.embedding_parts import ROWS_PER_PART, read_parts, write_parts

LISTS = 256  # of the indexes; more find faster and take longer to make
NOISE = 0.5  # of a made embedding, of the standard deviation of a real one


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    for function, positional in (
        (links, ("folder", "corpus")),
        (manifest, ("folder", "file")),
        (parts, ("embeddings", "folder")),
        (pairs, ("embeddings",)),
        (voices, ("embeddings",)),
    ):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        for name in positional:
            command.add_argument(name, type=Path)
        command.add_argument("--rows", type=int, default=44_722 if function is pairs else 1_000_000)
        command.add_argument("--processes", type=int, default=1)
        command.add_argument("--exact", action="store_true")
    command = commands.add_parser("run")
    command.set_defaults(function=run)
    command.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.function(options)


def audio_in(folder: Path) -> list[Path]:
    """Return the audio files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".opus"))


def links(options: argparse.Namespace) -> None:
    """Make a corpus for ``speaker_folders`` of links to the files of a folder, with other speakers in each round."""
    files = audio_in(options.folder.resolve())
    for number in range(options.rows):
        turn, file = number // len(files), files[number % len(files)]
        place = options.corpus / f"{turn:04d}-{file.parent.name}"
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).symlink_to(file)
    print(f"{options.corpus}: {options.rows:,} links to {len(files):,} files")


def manifest(options: argparse.Namespace) -> None:
    """Write a manifest whose rows share the files of a folder of audio, with speakers of their own for each round."""
    files = audio_in(options.folder)
    headers = [soundfile.info(path) for path in files]
    rounds, turn = np.divmod(np.arange(options.rows), len(files))
    frames, rates = (np.array([getattr(header, name) for header in headers]) for name in ("frames", "samplerate"))
    names = np.array([f"$data_root/{path.relative_to(options.folder)}" for path in files])
    speakers, stems = np.array([path.parent.name for path in files]), np.array([path.stem for path in files])
    prefix = pd.Series(rounds).astype(str).str.zfill(4)
    columns = {
        "ID": prefix + "/" + stems[turn],
        "duration": (frames / rates).round(6)[turn],
        "wav": names[turn],
        "start": 0,
        "stop": frames[turn],
        "spk_id": prefix + "-" + speakers[turn],
    }
    pd.DataFrame(columns).to_csv(options.file, index=False)
    print(f"{options.file}: {options.rows:,} rows, {len(files):,} files")


def parts(options: argparse.Namespace) -> None:
    """Write made embeddings as embed.py does."""
    utterances, _ = read_parts(options.embeddings)
    embeddings, speakers = more_embeddings(options.embeddings, options.rows)
    rounds, turn = np.divmod(np.arange(options.rows), len(utterances))
    rows = pd.DataFrame({"ID": pd.Series(rounds).astype(str).str.zfill(4) + "/" + utterances["ID"].to_numpy()[turn]})
    rows["spk_id"] = pd.Series(speakers).astype(str).str.zfill(7)
    rows["duration"] = utterances["duration"].to_numpy()[turn]
    manifest_file = options.folder.with_suffix(".csv")
    rows["wav"], rows["start"], rows["stop"] = str(manifest_file), 0, 1  # a file that is there; no audio is read
    rows.to_csv(manifest_file, index=False)
    done = iter(np.split(embeddings, range(ROWS_PER_PART, options.rows, ROWS_PER_PART)))
    write_parts(manifest_file, {}, options.folder, "made", lambda _, bar: next(done))
    print(f"{options.folder}: {options.rows:,} embeddings of {len(np.unique(speakers)):,} speakers")


def pairs(options: argparse.Namespace) -> None:
    """Time the error rates of all pairs, and extrapolate to 10^10."""
    embeddings, speakers = more_embeddings(options.embeddings, 10_000 if options.exact else options.rows)
    started, used = time.monotonic(), time.process_time()
    mine = embeddings.copy() if options.exact else embeddings  # they are overwritten
    found = all_pairs_histogram(mine, speakers, options.processes).summary()
    seconds, used = time.monotonic() - started, time.process_time() - used
    number = found["num_target"] + found["num_nontarget"]
    print(
        f"{number:,} pairs ({found['num_target']:,} target): {seconds:.1f} s, {used:.1f} s of the processor in this "
        f"process, {options.processes} processes; 10^10 pairs at this rate {1e10 / number * seconds:,.0f} s, "
        f"{1e10 / number * used:,.0f} s of the processor; peak {peak_mib():,.0f} MiB; load {os.getloadavg()[0]:.1f}"
    )
    print(f"EER {found['eer']:.8f}, in {found['eer_bounds']}; minDCF {found['min_dcf']}")
    if options.exact:
        enrol, test = np.triu_indices(len(embeddings), 1)
        exact = error_rates(cosine_scores(embeddings, enrol, test), speakers[enrol] == speakers[test]).summary()
        print(f"with stored scores: EER {exact['eer']:.8f}, minDCF {exact['min_dcf']}; peak {peak_mib():,.0f} MiB")


def more_embeddings(folder: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``number`` embeddings, float32 (utterances, dims), made from those of ``folder``, and their speakers.

    Each round of copies adds an offset per speaker and noise per utterance: other speakers, of the same kind.
    """
    utterances, real = read_parts(folder)
    rng, scale = np.random.default_rng(0), NOISE * real.std(axis=0)
    codes, names = pd.factorize(utterances["spk_id"])
    made, speakers = np.empty((number, real.shape[1]), np.float32), np.empty(number, np.int64)
    for start in range(0, number, len(real)):
        size = min(len(real), number - start)
        offsets = scale * rng.standard_normal((len(names), len(scale)))
        noise = scale * rng.standard_normal((size, len(scale)))
        made[start : start + size] = real[:size] + (offsets[codes[:size]] + noise if start else 0)
        speakers[start : start + size] = start + codes[:size]
    return made, speakers


def voices(options: argparse.Namespace) -> None:
    """Identify made queries among made voices; recall: the best voice is that of the exact search."""
    import pgserver

    from examples.index_voices import best_in_postgres, copy_to_postgres, faiss_index

    vectors, queries = made_voices(options.embeddings, options.rows)
    exact, seconds = timed(lambda: np.array([np.argmax(vectors @ query) for query in queries]))
    print(
        f"{len(vectors):,} voices, {len(queries)} queries; exact: {1e3 * seconds / len(queries):.1f} ms a query",
        flush=True,
    )

    def report(name: str, made_s: float, search: Callable[[], list[int]]) -> None:
        found, seconds = timed(search)
        recall = np.mean(np.array(found) == exact)
        print(
            f"{name}: made in {made_s:.0f} s, {1e3 * seconds / len(queries):.1f} ms a query, recall {recall:.3f}; "
            f"peak {peak_mib():,.0f} MiB, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )

    index, made_s = timed(lambda: faiss_index(vectors, f"IVF{LISTS},SQ8"))
    for index.nprobe in (4, 16, 64):
        name = f"FAISS IVF{LISTS},SQ8, nprobe {index.nprobe}"
        report(name, made_s, lambda: [index.search(query[None], 1)[1][0, 0] for query in queries])
    server = pgserver.get_server(options.embeddings.with_name("postgres"), cleanup_mode="delete")
    try:
        _, made_s = timed(lambda: copy_to_postgres(server.psql, vectors, server.pgdata, lists=LISTS))
        for probes in (4, 16, 64):
            name = f"pgvector ivfflat, {LISTS} lists, probes {probes}"
            report(name, made_s, lambda: [row for ((row, _),) in best_in_postgres(server.psql, queries, 1, probes)])  # noqa: B023
    finally:
        server.cleanup()


def made_voices(folder: Path, number: int, num_queries: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Return voices, unit vectors (number, dims) distributed as real embeddings, and queries (num_queries, dims).

    A query is a voice, moved with the covariance of a speaker's recordings around their mean.
    """
    utterances, real = read_parts(folder)
    within = real - pd.DataFrame(real).groupby(utterances["spk_id"].to_numpy()).transform("mean").to_numpy()
    rng = np.random.default_rng(0)
    factors = [np.linalg.cholesky(np.cov(table.T) + 1e-4 * np.eye(real.shape[1])) for table in (real, within)]
    made = (real.mean(axis=0) + rng.standard_normal((number, real.shape[1]), np.float32) @ factors[0].T).astype(
        np.float32
    )
    queries = made[:num_queries] + (rng.standard_normal((num_queries, real.shape[1])) @ factors[1].T).astype(np.float32)
    return normalise_lengths(made), normalise_lengths(queries)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what ``work`` returns, and its seconds."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def run(options: argparse.Namespace) -> None:
    """Run a command, and print its time and the peak memory of its largest process."""
    started = time.monotonic()
    status = subprocess.call(options.command)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{time.monotonic() - started:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of the processor, peak "
        f"{used.ru_maxrss / 1024:,.0f} MiB, exit status {status}; load {os.getloadavg()[0]:.1f}"
    )


def peak_mib() -> float:
    """Return the peak memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
