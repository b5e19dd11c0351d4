"""``verify.py page``: the folder, its faults, and the same answers as Python's."""

import base64
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import make_speech
from tests.model_folders import write_toy_model_folder
from tests.static_page import downloaded_runtime, node
from verify import main
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.recognizer import Recognizer
from voice_biometrics.serve import static_page
from voice_biometrics.serve.api import REQUESTS

HERE = Path(__file__).parent
PRETRAINED = Path(__file__).parents[3] / "pretrained"
RATE = 16000


@pytest.fixture(scope="session")
def folder(pytestconfig, tmp_path_factory):
    """The page of the pretrained model."""
    folder = tmp_path_factory.mktemp("static") / "page"
    (folder.parent / "package.json").write_text('{"type": "module"}')  # Node before 20.19 takes .js files for scripts
    assert main(["page", str(folder), "--onnxruntime_web", downloaded_runtime(pytestconfig)]) == 0
    return folder


@pytest.fixture
def toy(tmp_path):
    return str(write_toy_model_folder(tmp_path / "model"))


def test_the_pure_logic_in_node():
    done = node("--test", str(HERE / "static-page.test.mjs"))
    assert done.returncode == 0, done.stdout


def test_the_folder_has_the_model_the_runtime_and_its_licence_and_no_part_of_the_server(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    onnx = json.loads((folder / "model/model.json").read_text())["onnx"]
    assert (folder / "model" / onnx).read_bytes() == (PRETRAINED / "embedder.onnx").read_bytes()
    assert {"index.html", "main.js", "backend-local.js", "model/silero_vad.LICENSE", "model/MODEL_CARD.md"} <= names
    assert not names & {"backend-http.js", "main-local.js"}
    assert "MIT License" in (folder / "onnxruntime-web/LICENSE").read_text()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 23e6
    assert folder.stat().st_mode & 0o777 == 0o777 & ~_umask()
    assert "'wasm-unsafe-eval'" in (folder / "index.html").read_text()


def _umask():
    os.umask(found := os.umask(0o022))
    return found


def wav(samples):
    """The bytes of a 16-bit WAV file."""
    soundfile.write(file := io.BytesIO(), samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def node_argument(value):
    """The form of an argument in ``answers.mjs``; a tuple is a file: name, samples (samples, channels), rate."""
    if isinstance(value, bytes):
        return {"wav": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [node_argument(one) for one in value]
    if isinstance(value, tuple):
        name, samples, rate = value
        channels = [base64.b64encode(channel.astype("<f4").tobytes()).decode() for channel in samples.T]
        return {"name": name, "rate": rate, "channels": channels}
    return value


def unpacked(package, folder):
    """The module of onnxruntime-web for Node, whose other files lie beside it."""
    names = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    with tarfile.open(package) as archive:
        for name in names:
            archive.extract(f"package/dist/{name}", folder, filter="data")
    return folder / "package/dist" / names[0]


def node_answers(folder, runtime, steps):
    """The answers of ``answers.mjs``."""
    text = json.dumps([[node_argument(value) for value in step] for step in steps])
    done = node(str(HERE / "answers.mjs"), str(folder), str(runtime), input=text)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def python_argument(value):
    if isinstance(value, tuple):
        name, samples, rate = value
        soundfile.write(file := io.BytesIO(), samples, rate, format="WAV", subtype="FLOAT")
        return {"name": name, "content": file.getvalue()}
    return value


def python_answer(recognizer, method, *arguments):
    """The answer of ``verify.py serve``."""
    kind = next(kind for (_, path), kind in REQUESTS.items() if path == f"/api/{method}")
    fields = kind.__struct_fields__
    values = [python_argument(value) for value in arguments]
    if method == "compare":
        values = [kind.__annotations__["a"](**value) for value in values]
    try:
        return kind(**dict(zip(fields, values, strict=False))).answer(recognizer)
    except InputError as error:
        return {"error": str(error)}


def speakers():
    """Three voices of unlike pitch, (say) -> samples."""
    return [lambda seed, s=3.0, pitch=pitch: make_speech(pitch, s, seed) for pitch in (90, 150, 240)]


def test_answers_in_node_are_those_of_python(folder, tmp_path, pytestconfig):
    anna, bert, carl = speakers()
    steps = [
        ["enrol", "anna", [wav(anna(seed)) for seed in (1, 2, 3)]],
        ["enrol", "bert", [wav(bert(4))]],
        ["enrol", "carl", [wav(carl(5, 1.2)), wav(carl(6))]],
        ["enrol", "mixed", [wav(anna(1)), wav(carl(5)), wav(anna(2))], True],
        ["enrol", "twice", [wav(anna(1)), wav(anna(1))]],
        ["verify", "twice", wav(anna(1))],
        ["verify", "anna", wav(anna(7))],
        ["verify", "anna", wav(carl(8))],
        ["verify", "bert", wav(np.clip(3 * anna(9), -0.2, 0.2))],
        ["verify", "bert", wav(0.004 * bert(8))],
        ["verify", "bert", wav(bert(8) + 0.2)],
        ["verify", "bert", wav(np.zeros(RATE))],
        ["verify", "bert", wav(0.3 * np.sin(np.arange(3 * RATE) / 50))],
        ["verify", "bert", wav(bert(8, 0.3))],
        ["identify", wav(bert(9))],
        ["identify", wav(np.random.default_rng(1).normal(0, 0.1, 3 * RATE))],
    ]
    steps += [["compare", *files] for files in files_of(anna, carl)]
    found_answers = node_answers(folder, unpacked(downloaded_runtime(pytestconfig), tmp_path), steps)
    recognizer = Recognizer(PRETRAINED, tmp_path / "voices.db")
    decisions = set()
    for step, found in zip(steps, found_answers, strict=True):
        expected = python_answer(recognizer, *step)
        tolerance = 0.02 if step[0] == "compare" and step[1][2] != RATE else 1e-4  # another resampling filter
        assert_same(found, expected, tolerance, step[:2] if step[0] != "compare" else step[1][0])
        decisions.add(found.get("decision"))
    assert decisions == {"accepted", "rejected", None}


def files_of(anna, carl):
    """Pairs of files: two channels, two that cancel, two people, a lower and a higher rate."""
    plain = ("plain.wav", anna(1)[:, None], RATE)
    left, right = anna(2), 0.5 * carl(2)
    yield plain, ("stereo.wav", np.stack([left, right], axis=1), RATE)
    turns = np.arange(left.size) // RATE % 2
    yield plain, ("people.wav", np.stack([left * turns, right * (1 - turns)], axis=1), RATE)
    yield plain, ("inverted.wav", np.stack([left, -left], axis=1), RATE)
    for rate in (8000, 44_100, 48_000):
        yield ("rate.wav", make_speech(150, 3.0, 3, rate)[:, None], rate), plain


def assert_same(found, expected, tolerance, place):
    """Numbers within a tolerance, everything else equal; either may say more about ``points``."""
    if isinstance(expected, dict):
        if "error" in expected:
            assert found["error"] == expected["error"] and found["kind"] == "input", place
            return
        assert set(found) ^ set(expected) <= {"num_voices", "num_nontarget"}, place
        for key in set(found) & set(expected):
            assert_same(found[key], expected[key], tolerance, (place, key))
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), place
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance, place)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance), place
    else:
        assert found == expected, place


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: (path.mkdir(), (path / "a").touch())])
def test_a_target_that_is_not_an_empty_folder_is_refused_and_unchanged(toy, tmp_path, capsys, make):
    make(target := tmp_path / "page")
    before = sorted(tmp_path.rglob("*"))
    assert main(["page", str(target), "--model", toy]) == 2
    assert str(target) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_root_of_the_disk_is_refused(toy, capsys):
    assert main(["page", "/", "--model", toy]) == 2
    assert "expected an empty folder" in capsys.readouterr().err


def test_an_empty_folder_is_used(toy, tmp_path, pytestconfig):
    (target := tmp_path / "page").mkdir()
    assert main(["page", str(target), "--model", toy, "--onnxruntime_web", downloaded_runtime(pytestconfig)]) == 0
    assert (target / "index.html").exists() and not list(tmp_path.glob(".*"))


def test_without_network_the_message_names_the_package_and_the_option(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(static_page, "URL", "https://127.0.0.1:1/onnxruntime-web.tgz")
    assert main(["page", str(tmp_path / "page"), "--model", toy]) == 2
    assert "--onnxruntime_web" in capsys.readouterr().err
    assert not (tmp_path / "page").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [None, b"", b"another package"])
def test_a_package_that_is_missing_or_another_one_is_refused(toy, tmp_path, capsys, content):
    package = tmp_path / "package.tgz"
    if content is not None:
        package.write_bytes(content)
    assert main(["page", str(tmp_path / "page"), "--model", toy, "--onnxruntime_web", str(package)]) == 2
    assert str(package) in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_a_broken_model_folder_is_refused(toy, tmp_path, capsys):
    (Path(toy) / "embedder.onnx").write_bytes(b"broken")
    assert main(["page", str(tmp_path / "page"), "--model", toy]) == 2
    assert "embedder.onnx" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(toy, tmp_path, capsys):
    (closed := tmp_path / "closed").mkdir(mode=0o500)
    assert main(["page", str(closed / "page"), "--model", toy]) == 2
    assert str(closed) in capsys.readouterr().err


def test_a_chosen_far_decides_on_the_page(toy, tmp_path, pytestconfig):
    options = ["--model", toy, "--far", "0.02", "--onnxruntime_web", downloaded_runtime(pytestconfig)]
    assert main(["page", str(tmp_path / "page"), *options]) == 0
    info = json.loads((tmp_path / "page/model/model.json").read_text())["info"]
    assert (info["use"], info["points"][-1]["threshold"]) == ("far 0.02", 2.0)
