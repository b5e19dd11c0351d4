"""The command ``verify.py page``: a static folder with a page that needs no server, as everything runs in the browser.

    index.html, *.css, *.js     the page of ``page/``; ``main.js`` starts ``backend-local.js``
    model/model.json            what ``backend-local.js`` decides by (below)
    model/<fingerprint>.onnx    the embedder; its name differs between models, so that caches cannot mix them
    model/MODEL_CARD.md         use, data, licence, results, limits
    model/silero_vad.onnx       finds the speech in a recording; with its licence
    onnxruntime-web/            ONNX Runtime for browsers, one wasm thread, with its licence

``model.json``, from ``calibration.json``: ``info`` (``Info`` of ``page/backend.js``), ``onnx`` (name of the file),
``calibration`` (slope, offset), ``error_rates`` (llr, far, frr), ``limits`` (min_duration_s: shorter speech is repeated
up to it; measured_from_s: the shortest recording of the error rates).

ONNX Runtime is downloaded from the npm registry, in the version and with the checksum below.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import speech_activity
from voice_biometrics.inference.cli import Output, recognizer_of
from voice_biometrics.inference.model_folder import CARD_NAME
from voice_biometrics.inference.recognizer import Recognizer
from voice_biometrics.serve.api import Info
from voice_biometrics.serve.server import PAGE, POLICY

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's integrity
MAX_BYTES = 2**26
TIMEOUT_S = 60.0  # without a byte
RUNTIME = "onnxruntime-web"  # folder
RUNTIME_FILES = {  # in the package -> in the folder; every static server knows the type of .js, not that of .mjs
    "package/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")  # the npm package has none; the wheel of the same project has
SPEECH_ACTIVITY = ("silero_vad.onnx", "silero_vad.LICENSE")
SERVER_ONLY = {"main.js", "main-local.js", "backend-http.js"}
HEAD = "<head>"


def page(options: argparse.Namespace) -> Output:
    """Write the static page."""
    recognizer = recognizer_of(options)
    folder = Path(options.folder).absolute()
    with _new_folder(folder) as temporary:
        _write_page(temporary)
        _write_model(temporary / "model", recognizer)
        _write_runtime(temporary / RUNTIME, runtime_package(options.onnxruntime_web))
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    words = (
        f"wrote {folder}: {size / 1e6:.0f} MB, for any web server with HTTPS\n"
        f"to try it: python -m http.server --bind 127.0.0.1 --directory {folder} 8000, then open http://localhost:8000/"
    )
    return Output(words, {"folder": str(folder), "bytes": size})


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` when the block ends; InputError unless that is free."""
    temporary = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise InputError(f"{folder}: expected an empty folder or none; give another, or remove this one")
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write: {error.strerror or error}; check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_page(folder: Path) -> None:
    for source in sorted(PAGE.iterdir()):
        if source.name not in SERVER_ONLY:
            shutil.copyfile(source, folder / source.name)
    shutil.copyfile(PAGE / "main-local.js", folder / "main.js")
    # Without a server of ours the policy is in the page: it may reach no other origin, and run wasm.
    policy = POLICY.replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
    policy = policy.replace("frame-ancestors 'none'; ", "")  # only in a header
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    meta = f'{HEAD}\n    <meta http-equiv="Content-Security-Policy" content="{policy}">'
    (folder / "index.html").write_text(html.replace(HEAD, meta, 1), encoding="utf-8")


def _write_model(folder: Path, recognizer: Recognizer) -> None:
    folder.mkdir()
    model, entry = recognizer.model, recognizer.entry
    onnx = f"{entry.fingerprint}.onnx"
    (folder / onnx).write_bytes(model.onnx[entry.file])
    (folder / "model.json").write_text(json.dumps(model_json(recognizer, onnx)), encoding="utf-8")
    shutil.copyfile(model.path / CARD_NAME, folder / CARD_NAME)
    for name in SPEECH_ACTIVITY:
        shutil.copyfile(Path(speech_activity.__file__).with_name(name), folder / name)


def model_json(recognizer: Recognizer, onnx: str) -> dict[str, Any]:
    """Return the content of ``model.json``; ``onnx`` is the name of the embedder's file."""
    model, entry = recognizer.model, recognizer.entry
    curve = entry.error_rates
    return {
        "info": Info().answer(recognizer),
        "onnx": onnx,
        "calibration": {"slope": entry.calibration.slope, "offset": entry.calibration.offset},
        "error_rates": {"llr": curve.llr, "far": curve.far, "frr": curve.frr},
        "limits": {
            "min_duration_s": model.min_duration_s,
            "measured_from_s": model.held_out.duration_s.shortest,
        },
    }


def _write_runtime(folder: Path, package: bytes) -> None:
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member, name in RUNTIME_FILES.items():
            (folder / name).write_bytes(archive.extractfile(member).read())
    for name in LICENCES:
        shutil.copyfile(Path(onnxruntime.__file__).parent / name, folder / name)


def runtime_package(path: str | None) -> bytes:
    """Return the npm package, from a file or from the registry; InputError if it is another one, or out of reach."""
    way_out = f"download {URL} where the network reaches it (or: npm pack onnxruntime-web@{VERSION})"
    advice = f"{way_out} and give the file: --onnxruntime_web onnxruntime-web-{VERSION}.tgz"
    try:
        with open(path, "rb") if path else urllib.request.urlopen(URL, timeout=TIMEOUT_S) as file:
            content = file.read(MAX_BYTES)
    except OSError as error:  # URLError is one
        reason = getattr(error, "strerror", None) or getattr(error, "reason", error)
        raise InputError(f"{path or URL}: could not be read ({reason}); {advice}") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise InputError(f"{path or URL}: expected the checksum sha512-{SHA512[:12]}..., found another; {advice}")
    return content
