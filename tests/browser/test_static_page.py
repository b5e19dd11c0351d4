"""The page without a server, in Chromium with a microphone that plays real speakers."""

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests.browser.chromium import Page, chromium
from tests.conftest import SHARED
from tests.static_page import downloaded_runtime
from verify import main
from voice_biometrics.common.audio import read_audio
from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder
from voice_biometrics.inference.recognizer import Recognizer
from voice_biometrics.inference.voiceprints import unit

PRETRAINED = Path(__file__).parents[2] / "pretrained"
CORPUS = SHARED / "corpora/librispeech_excerpt/train-clean-100"
RATE = 16000
SPEECH_S = 3.0
SPEECH = round(SPEECH_S * RATE)  # samples
EMBED = """
const [samples, done] = arguments;
import("./browser.js")
  .then(({ load }) => load())
  .then(({ embed }) => embed(Float32Array.from(samples)))
  .then((embedding) => done([...embedding]), (error) => done(error.stack));
"""
STORE = """
const [method, argument, done] = arguments;
import("./voice-store.js")
  .then(({ openStore }) => openStore(() => indexedDB))
  .then((store) => store[method](argument))
  .then((answer) => done(answer ?? null), (error) => done(error.message));
"""
NO_INDEXED_DB = "Object.defineProperty(window, 'indexedDB', { get() { throw new Error('denied'); } });"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(pytestconfig, tmp_path_factory):
    """The page of the pretrained model."""
    folder = tmp_path_factory.mktemp("static") / "page"
    assert main(["page", str(folder), "--onnxruntime_web", downloaded_runtime(pytestconfig)]) == 0
    return folder


@pytest.fixture(scope="module")
def speakers():
    """Two real speakers whom the model tells apart, (4 recordings, samples) each, cut from one file."""
    if not CORPUS.is_dir():
        pytest.skip(f"needs {CORPUS}")
    embed, found = Embedder(read_model_folder(PRETRAINED)), []
    for file in sorted(CORPUS.rglob("*.ogg")):
        parts = read_audio(file, RATE)[: 4 * SPEECH]
        if parts.size < 4 * SPEECH:
            continue
        parts = parts.reshape(4, -1)
        embeddings = np.stack([unit(embed(part)) for part in (*parts, *(other[0] for other in found))])
        scores = embeddings[0] @ embeddings.T
        if scores[1:4].min() > 0.6 and scores[4:].max(initial=0.0) < 0.2:
            found.append(parts)
        if len(found) == 2:
            return found
    raise AssertionError("expected two speakers")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as ``python -m http.server`` does; yields its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@contextmanager
def opened(folder: Path, tmp_path: Path, script: str = "", **options: bool) -> Iterator[Page]:
    """Open the page of a folder; ``script`` runs before those of the page, ``options`` are those of ``chromium``."""
    soundfile.write(capture := tmp_path / "capture.wav", np.zeros(RATE), RATE)
    with served(folder) as address, chromium(capture, **options) as page:
        page.driver.set_script_timeout(120)  # while the model is loaded, and on a busy machine
        if script:
            page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        page.driver.get(address)
        page.one("[role=tab]")
        yield page


def open_task(page, task):
    """Choose a tab."""
    page.press(task)
    page.wait(lambda: page.one("[role=tab][aria-selected=true]").text == task, task)


def enrol(page, name, recordings):
    open_task(page, "Enrol")
    page.one("#name").send_keys(name)
    for samples, action in zip(recordings, ["Next sentence", "Next sentence", "Enrol voice"], strict=True):
        page.speak(samples)
        page.record(SPEECH_S)
        page.press(action)
    assert f"{name} is enrolled" in page.one("h2").text


def headline(page, task, samples):
    """Speak, and return the headline of the verdict."""
    open_task(page, task)
    page.speak(samples)
    page.record(SPEECH_S)
    page.press({"Verify": "Verify voice", "Identify": "Find speaker"}[task])
    return page.one("#verdict-title").text


def test_the_embedding_is_that_of_python(folder, speakers, tmp_path):
    with opened(folder, tmp_path) as page:
        for samples in (speakers[0][0], speakers[1][1][:10_000]):
            found = page.driver.execute_async_script(EMBED, samples.tolist())
            expected = Embedder(read_model_folder(PRETRAINED))(samples)
            assert isinstance(found, list), found
            assert np.dot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99999


def test_a_speaker_is_enrolled_accepted_found_and_forgotten_and_another_rejected(folder, speakers, tmp_path):
    anna, bert = speakers
    with opened(folder, tmp_path) as page:
        enrol(page, "Anna", anna[:3])
        assert headline(page, "Verify", anna[3]) == "Accepted as Anna"
        assert headline(page, "Verify", bert[0]) == "Not confirmed as Anna"
        page.driver.refresh()
        page.one("[role=tab]")
        enrol(page, "Bert", bert[:3])
        assert headline(page, "Identify", anna[3]) == "This is Anna"
        forget(page, "Anna")
        page.driver.refresh()
        open_task(page, "Verify")
        assert [option.text for option in Select(page.one("#name")).options] == ["Bert"]
        assert page.faults() == []
        assert_own_origin_only(page)


def test_the_store_keeps_voices_of_one_name_each_until_they_are_removed(folder, tmp_path):
    with opened(folder, tmp_path) as page:
        ask = functools.partial(page.driver.execute_async_script, STORE)
        assert ask("add", {"name": "anna", "speech_s": 3}) is None
        assert "anna is already enrolled" in ask("add", {"name": "anna", "speech_s": 4})
        page.driver.refresh()
        assert ask("get", "anna") == {"name": "anna", "speech_s": 3}
        assert [ask("remove", "anna"), ask("all", None)] == [None, []]
        assert "anna is not enrolled" in ask("remove", "anna")


def forget(page, name):
    open_task(page, "Voices")
    page.press(f"Forget {name}")
    page.press(f"Forget {name} for good")
    page.wait(lambda: name not in page.text(), f"{name} forgotten")


def assert_own_origin_only(page):
    """Every request of the tab goes to the server of the page, or is of an object in the tab."""
    messages = [json.loads(line["message"])["message"] for line in page.driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    origin = page.driver.execute_script("return location.origin")
    assert any(url.endswith(".wasm") for url in urls)
    assert [url for url in urls if not url.startswith((f"{origin}/", "blob:"))] == []
    assert {m["params"]["request"]["method"] for m in messages if m["method"] == "Network.requestWillBeSent"} == {"GET"}


def test_files_are_compared_as_by_python_and_a_file_without_audio_is_refused(folder, speakers, tmp_path):
    files = {name: tmp_path / name for name in ("a.wav", "b.flac", "c.ogg", "text.wav")}
    for file, samples in zip(files.values(), [speakers[0][0], speakers[0][1], speakers[1][0]], strict=False):
        soundfile.write(file, samples, RATE)
    files["text.wav"].write_text("no audio")
    recognizer = Recognizer(PRETRAINED)
    with opened(folder, tmp_path) as page:
        for other in ("b.flac", "c.ogg"):
            compare(page, files["a.wav"], files[other])
            shown = float(page.one(".needle .value").text.replace("−", "-"))
            assert shown == pytest.approx(recognizer.compare(files["a.wav"], files[other]).llr, abs=0.02)
        compare(page, files["a.wav"], files["text.wav"])
        assert page.one("[role=alert]").text.startswith("text.wav: expected audio")


def compare(page, *files):
    open_task(page, "Compare")
    for place, file in enumerate(files):
        page.driver.find_elements(By.CSS_SELECTOR, "input[type=file]")[place].send_keys(str(file))
    page.all("main button.primary")[-1].click()  # the tab has the same label


def test_without_indexed_db_the_page_says_that_voices_last_as_long_as_the_tab(folder, speakers, tmp_path):
    with opened(folder, tmp_path, script=NO_INDEXED_DB) as page:
        assert "in this tab only" in page.one("#footer").text
        enrol(page, "Anna", speakers[0][:3])
        assert headline(page, "Verify", speakers[0][3]) == "Accepted as Anna"
        page.driver.refresh()
        open_task(page, "Voices")
        assert "No voice is enrolled yet" in page.text()


def test_a_missing_or_damaged_file_of_the_page_is_named_and_loading_can_be_tried_again(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    onnx = broken / "model" / json.loads((broken / "model/model.json").read_text())["onnx"]
    content = onnx.read_bytes()
    onnx.write_bytes(content[:1000])
    with served(broken) as address, chromium(tmp_path / "capture.wav") as page:
        page.driver.get(address)
        assert "The model could not be loaded" in page.one("[role=alert]").text
        onnx.unlink()
        page.press("Try again")
        page.wait(lambda: f"{onnx.name}: 404" in page.text(), "the missing file named")
        onnx.write_bytes(content)
        page.press("Try again")
        page.one("[role=tab]")


def test_a_refused_microphone_is_explained(folder, tmp_path):
    with opened(folder, tmp_path, allows_microphone=False) as page:
        page.press("Record")
        assert "Microphone access was denied" in page.one("[role=alert]").text
