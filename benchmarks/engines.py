"""Compare the engines that run a model folder, on held-out speech: embeddings, decisions and EER.

    python benchmarks/engines.py pretrained --manifest RUN/manifests/valid.csv \
        --corpus speechocean762,librispeech,common_voice --data_folder A,B,C

Embeds the utterances of the manifest with each engine, from samples at the model's rate; prints the smallest and the
median cosine to ``embedder.onnx`` in Python, the pairs of utterances whose decision at the threshold of --use differs
from it (int8 has its own threshold), and the EER over all pairs. Needs sherpa-onnx, Chromium, its driver and selenium.
--onnxruntime_web is the npm package; without it ``verify.py page`` downloads it.
"""

import argparse
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

import voice_biometrics  # noqa: F401 - before PyTorch, see there

# isort: split
from browser import opened, write_page
from inference import hardware, sherpa, speechbrain_eager

from voice_biometrics.common.audio import read_audio, repeat_to
from voice_biometrics.common.manifest import data_roots, read_utterances
from voice_biometrics.inference import Recognizer
from voice_biometrics.metrics.error_rates import equal_error_rate
from voice_biometrics.scoring.cosine import normalise_lengths

Embed = Callable[[np.ndarray], np.ndarray]
COLUMNS = "| engine | smallest cosine (median) | decisions that differ | EER |\n|---|---|---|---|"
PREPARE = """
const done = arguments[0];
import("./browser.js")
  .then(({ load }) => load())
  .then((parts) => (window.parts = parts))
  .then(() => done(null), (error) => done(error.stack));
"""
EMBED = """
const [samples, done] = arguments;
window.parts.embed(Float32Array.from(samples)).then((embedding) => done([...embedding]), (error) => done(error.stack));
"""


def main() -> None:
    """Print the table."""
    options = parse_options()
    table = read_utterances(Path(options.manifest), data_roots(options.corpus, options.data_folder))[:: options.every]
    recognizers = {name: Recognizer(options.model, use=options.use, precision=name) for name in ("fp32", "int8")}
    rate = recognizers["fp32"].model.sample_rate
    shortest = round(recognizers["fp32"].model.min_duration_s * rate)  # samples
    speech = [repeat_to(read_audio(row.wav, rate, row.start, row.stop), shortest) for row in table.itertuples()]
    speakers = table["spk_id"].to_numpy()
    num_pairs = len(table) * (len(table) - 1) // 2
    print(f"{hardware()}\n\n{len(set(speakers))} speakers, {len(table):,} utterances, {num_pairs:,} pairs\n\n{COLUMNS}")
    reference = None
    for name, precision, made in engines(options, recognizers):
        with made as embed:
            embeddings = normalise_lengths(np.stack([embed(samples) for samples in tqdm(speech, name, unit="utt")]))
        reference = embeddings if reference is None else reference
        first, second = np.triu_indices(len(table), 1)
        scores = (embeddings @ embeddings.T)[first, second]
        is_accepted = scores >= threshold(recognizers[precision])
        expected = (reference @ reference.T)[first, second] >= threshold(recognizers["fp32"])
        cosines = np.einsum("ud,ud->u", embeddings, reference, dtype=np.float64)
        eer, _ = equal_error_rate(scores, speakers[first] == speakers[second])
        words = f"{cosines.min():.8f} ({np.median(cosines):.8f})"
        print(f"| {name} | {words} | {np.sum(is_accepted != expected):,} | {100 * eer:.3f} % |", flush=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name in ("manifest", "corpus", "data_folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--every", type=int, default=1, help="take one of so many utterances: Chromium is slow")
    parser.add_argument("--use", default="smart_speaker")
    parser.add_argument("--onnxruntime_web")
    return parser.parse_args()


def threshold(recognizer: Recognizer) -> float:
    """Return the cosine at the threshold that decides."""
    return recognizer.entry.calibration.score_at(recognizer.point.threshold)


def engines(options: argparse.Namespace, recognizers: dict[str, Recognizer]) -> Iterator[tuple]:
    """Yield name, precision and a context that gives the function from samples to embedding; the reference first."""
    here = Namespace(model=options.model, threads=1)
    yield "`embedder.onnx`, ONNX Runtime in Python", "fp32", nullcontext(recognizers["fp32"].embed)
    yield "`speechbrain/`, SpeechBrain (PyTorch)", "fp32", nullcontext(speechbrain_eager(here))
    yield "`embedder.sherpa.onnx`, sherpa-onnx", "fp32", nullcontext(sherpa(here))
    yield "`embedder.onnx`, Chromium (wasm)", "fp32", in_browser("fp32", options)
    yield "`embedder.int8.onnx`, ONNX Runtime in Python", "int8", nullcontext(recognizers["int8"].embed)
    yield "`embedder.int8.onnx`, Chromium (wasm)", "int8", in_browser("int8", options)


@contextmanager
def in_browser(precision: str, options: argparse.Namespace) -> Iterator[Embed]:
    """Give the embedder of the page without a server, in Chromium."""
    with tempfile.TemporaryDirectory() as folder:
        with opened(write_page(Path(folder) / "page", precision, options)) as driver:
            if fault := driver.execute_async_script(PREPARE):
                sys.exit(f"the page failed: {fault}")
            yield lambda samples: np.array(driver.execute_async_script(EMBED, samples.tolist()))


if __name__ == "__main__":
    main()
