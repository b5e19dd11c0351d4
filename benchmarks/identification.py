"""Time identification among many enrolled voices: ``python benchmarks/identification.py [--voices N] [--seed S]``.

Random embeddings of 192 numbers are enrolled in a store, read back into a ``Gallery``, and searched for the best three
of a recording: by the gallery's matrix product, and by FAISS's exact index and its indices of 16 and 8 bits a number.
Each is timed 30 times on two threads; on a machine that others use, the fastest tells what it can do and the median
what it does. With a million voices it takes some minutes, 3 GB of memory and 1 GB of disk.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

NUM_THREADS = 2
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(NUM_THREADS))  # before numpy

import faiss  # noqa: E402
import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import processor  # noqa: E402

from voice_biometrics.inference.gallery import Gallery  # noqa: E402
from voice_biometrics.inference.store import Store  # noqa: E402
from voice_biometrics.inference.voiceprints import Template  # noqa: E402

DIMS = 192
FINGERPRINT = "ab" * 32
REPEATS = 30
COUNT = 3
AT_ONCE = 10_000

Result = TypeVar("Result")


def main() -> None:
    """Print what each step and each way to search takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faiss.omp_set_num_threads(NUM_THREADS)
    machine = f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.voices:,} voices, seed {options.seed}, {NUM_THREADS} threads; {machine}")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "voices.db", create=True)
        say("enrol all, one transaction", lambda: store.add_all(voices(options.voices, options.seed)))
        print(f"  store: {store.path.stat().st_size / 2**20:,.0f} MiB")
        gallery = say("read all into the gallery", lambda: Gallery(store, FINGERPRINT, DIMS))
        say("verify one by name", lambda: store.get("voice 7"))
        search_all_ways(gallery, options.seed)
        say("forget one and wipe", lambda: store.forget("voice 7"))


def search_all_ways(gallery: Gallery, seed: int) -> None:
    """Time the search of the gallery and of FAISS's indices, and compare what they find."""
    rng = np.random.default_rng(seed + 1)
    near = gallery.rows[len(gallery.rows) // 2] + 0.05 * rng.standard_normal(DIMS, np.float32)
    probe = (near / np.linalg.norm(near)).astype(np.float32)
    expected = [name for name, _ in repeat("matrix product", lambda: gallery.best(probe, COUNT))]
    for name, index in indices(gallery.rows):
        index.add(gallery.rows)
        found = repeat(name, lambda index=index: index.search(probe[None], COUNT))[1][0]
        if [gallery.names[row] for row in found] != expected:
            print("    finds others, or in another order")


def indices(rows: np.ndarray) -> Iterator[tuple[str, faiss.Index]]:
    """Yield FAISS's indices, empty."""
    yield "FAISS exact", faiss.IndexFlatIP(DIMS)
    for bits in ("fp16", "8bit"):
        kind = getattr(faiss.ScalarQuantizer, f"QT_{bits}")
        index = faiss.IndexScalarQuantizer(DIMS, kind, faiss.METRIC_INNER_PRODUCT)
        index.train(rows[:AT_ONCE])
        yield f"FAISS {bits}", index


def voices(number: int, seed: int) -> Iterator[tuple[str, Template]]:
    """Yield random voices."""
    rng = np.random.default_rng(seed)
    for start in range(0, number, AT_ONCE):
        embeddings = rng.standard_normal((min(AT_ONCE, number - start), DIMS), np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        for place, embedding in enumerate(embeddings, start=start):
            yield f"voice {place}", Template(FINGERPRINT, 1, 4.0, embedding)


def say(what: str, work: Callable[[], Result]) -> Result:
    """Print what something takes once."""
    start = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - start:.3f} s", flush=True)
    return result


def repeat(what: str, work: Callable[[], Result]) -> Result:
    """Print the fastest and the median of many repetitions."""
    taken_ms = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        taken_ms.append(1000 * (time.perf_counter() - start))
        time.sleep(0.1)
    print(f"  {what}: fastest {min(taken_ms):.1f}, median {np.median(taken_ms):.1f} ms", flush=True)
    return result


if __name__ == "__main__":
    main()
