"""The page of ``verify.py serve`` in Chromium: what a user does, and every state that tells him what is wrong.

The microphone plays files. With the real corpora, a real speaker is enrolled with ``pretrained/``; the other tests use
artificial voices and a toy model.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.browser.chromium import SAMPLE_RATE, Page, chromium
from tests.conftest import make_speech
from tests.model_folders import write_toy_model_folder
from voice_biometrics.common.audio import read_audio, resample
from voice_biometrics.inference import Recognizer

ROOT = Path(__file__).parents[2]
SECOND = 3.0  # of each recording
HTML_NAME = "<img src=x onerror=alert(1)> Bert"
KEEP_TRACK = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (what) => {
  const stream = await ask(what);
  [window.track] = stream.getTracks();
  return stream;
};
"""
pytestmark = pytest.mark.slow


class Serving:
    """A running ``verify.py serve`` with an empty store."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "verify.py"), "serve", "--port", "0", *arguments]
        self.store = folder / "voices.db"
        self.process = subprocess.Popen([*command, "--store", str(self.store)], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[1]

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        assert self.process.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    capture = tmp_path_factory.mktemp("browser") / "capture.wav"
    soundfile.write(capture, np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    with chromium(capture) as page:
        yield page


@pytest.fixture
def toy(browser, tmp_path):
    """The page with a toy model."""
    serving = Serving(tmp_path, "--model", str(write_toy_model_folder(tmp_path / "model")))
    browser.driver.get(serving.url)
    browser.one("[data-state=idle]")
    browser.faults()  # of earlier pages
    yield browser, serving
    serving.process.kill()
    serving.process.communicate()


def anna(number: int) -> np.ndarray:
    """Return a recording of an artificial voice."""
    return make_speech(110, SECOND, number)


def bert(number: int) -> np.ndarray:
    """Return a recording of another one."""
    return make_speech(230, SECOND, number)


def enrol(page: Page, name: str, recordings: list[np.ndarray]) -> None:
    """Enrol a voice from three recordings, up to the last press."""
    page.press("Enrol")
    page.one("[data-state=idle]")
    page.one("#name").send_keys(name)
    for number, samples in enumerate(recordings):
        page.speak(samples)
        page.record(2.5)
        page.press("Enrol voice" if number == 2 else "Next sentence")


def verify(page: Page, samples: np.ndarray) -> str:
    """Record for the chosen voice; return the headline of the verdict."""
    page.press("Verify")
    page.one("[data-state=idle]")
    page.speak(samples)
    page.record(2.5)
    page.press("Verify voice")
    return page.one("#verdict-title").text


def real_recordings(shared: Path, speaker: str) -> list[np.ndarray]:
    """Return four parts of 3 s of a speaker's utterance."""
    (file,) = (shared / "corpora/librispeech_excerpt/train-clean-100" / speaker).rglob("*.ogg")
    return np.split(read_audio(file, SAMPLE_RATE)[: 12 * SAMPLE_RATE], 4)


def test_a_real_speaker_is_enrolled_and_accepted_another_is_not_and_forgotten_leaves_nothing(browser, shared, tmp_path):
    serving = Serving(tmp_path)
    own, other = real_recordings(shared, "1116"), real_recordings(shared, "1040")
    page = browser
    page.driver.get(serving.url)
    page.one("[data-state=idle]")
    enrol(page, "Anna", own[:3])
    page.wait(lambda: "Anna is enrolled" in page.text(), "enrolled")
    assert verify(page, own[3]) == "Accepted as Anna"
    assert len(page.all(".point")) == 2 and len(page.all(".threshold")) == 2  # both uses
    threshold = Recognizer(ROOT / "pretrained").point.threshold
    assert "%" in page.one(".point.decisive").text and f"{threshold:+.2f}" in page.one(".point.decisive").text
    assert verify(page, other[3]) == "Not confirmed as Anna"
    page.press("Speak again")
    assert page.driver.switch_to.active_element == page.one("[aria-label=Record]")
    page.press("Identify")
    page.one("[data-state=idle]")
    page.speak(own[3])
    page.record(2.5)
    page.press("Find speaker")
    assert page.one("#verdict-title").text == "This is Anna"
    page.press("Voices")
    page.press("Forget Anna")
    page.press("Forget Anna for good")
    page.wait(lambda: "No voice is enrolled yet" in page.text(), "forgotten")
    assert page.driver.switch_to.active_element == page.one("#panel")
    assert page.faults() == []
    serving.end()
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("voices.db")]
    assert b"Anna" not in serving.store.read_bytes()


def test_faults_of_a_recording_are_told_before_it_is_sent(toy):
    page, _ = toy
    pause = np.zeros(30 * SAMPLE_RATE)
    cases = (
        (pause, "No sound was recorded", False),
        (np.concatenate([anna(0)[:4800], pause]), "Too short", False),
        (0.003 * np.concatenate(40 * [anna(0)]), "Too quiet", True),
    )
    for samples, told, is_usable in cases:
        page.speak(samples)
        page.record(2.0)
        page.one(".recorder .alert")
        assert told in page.text()
        labels = [button.text for button in page.all(".recorder button")]
        assert ("Next sentence" in labels) == is_usable and "Play" in labels and "Record again" in labels


def test_advice_appears_while_somebody_speaks_too_quietly(toy):
    page, _ = toy
    page.speak(0.003 * np.concatenate(20 * [anna(0)]))
    page.press("Record")
    page.wait(lambda: "Too quiet" in page.one(".advice").text, "advice")
    assert -60 <= int(page.one(".meter").get_attribute("aria-valuenow")) <= 0
    page.stop()


def test_another_voice_among_the_recordings_is_not_enrolled_until_recorded_again(toy):
    page, _ = toy
    enrol(page, "Anna", [anna(0), bert(1), anna(2)])
    page.wait(lambda: "Recording 2 sounds like a different speaker" in page.text(), "another voice")
    assert "record again" in page.all(".steps button")[1].get_attribute("aria-label")
    page.one("[data-state=review]")
    assert "Enrol voice" not in [button.text for button in page.all(".recorder button")]
    page.speak(anna(1))
    page.record(2.5)
    page.press("Enrol voice")
    page.wait(lambda: "Anna is enrolled" in page.text() and "3 recordings" in page.text(), "enrolled")


def test_a_clipped_recording_is_told(toy):
    page, _ = toy
    rate = page.driver.execute_script("return new AudioContext().sampleRate")  # resampling would round the corners
    page.speak(np.clip(8 * resample(np.concatenate(3 * [anna(0)]), SAMPLE_RATE, rate), -0.9, 0.9), rate)
    page.record(2.0)
    assert "Too loud" in page.one(".recorder .alert").text
    assert "Next sentence" in [button.text for button in page.all(".recorder button")]


def test_a_recording_without_speech_is_recorded_again(toy):
    page, _ = toy
    hum = 0.1 * np.sin(2 * np.pi * 100 * np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE)
    enrol(page, "Anna", [anna(0), hum, anna(2)])
    page.wait(lambda: "recording 2: expected 0.5 s of speech" in page.text(), "the recording without speech")
    assert "record again" in page.one(".steps [aria-current]").get_attribute("aria-label")
    page.one("[data-state=review]")
    page.speak(anna(1))
    page.record(2.5)
    page.press("Enrol voice")
    page.wait(lambda: "Anna is enrolled" in page.text(), "enrolled")


def test_a_microphone_that_is_unplugged_ends_the_recording(toy):
    page, _ = toy
    page.speak(anna(0))
    page.driver.execute_script(KEEP_TRACK)
    page.start(1.0)
    page.driver.execute_script("window.track.dispatchEvent(new Event('ended'))")
    page.one("[data-state=review]")


def test_another_tab_enrols_and_forgets(toy):
    page, serving = toy
    driver, first = page.driver, page.driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.get(serving.url)
    page.one("[data-state=idle]")
    enrol(page, "Anna", [anna(number) for number in range(3)])
    page.wait(lambda: "is enrolled" in page.text(), "enrolled")
    driver.close()
    driver.switch_to.window(first)
    driver.execute_script("window.dispatchEvent(new Event('focus'))")  # which a browser without a window does not send
    page.press("Voices")
    page.wait(lambda: page.press("Voices") or "Anna" in page.text(), "the voice of the other tab")


def test_names_are_checked_and_never_become_html(toy):
    page, _ = toy
    page.speak(bert(0))
    page.record(2.0)
    for name in ("", "An\u200dna"):  # none, and one with an invisible character
        page.one("#name").send_keys(name)
        page.press("Next sentence")
        page.wait(lambda: page.one("#name-problem").text, "what is wrong with the name")
        assert page.one("#name").get_attribute("aria-invalid") == "true"
        assert page.driver.switch_to.active_element == page.one("#name")
    enrol(page, HTML_NAME, [bert(number) for number in range(3)])
    page.wait(lambda: f"{HTML_NAME} is enrolled" in page.text(), "enrolled")
    assert verify(page, bert(4)) == f"Accepted as {HTML_NAME}"
    page.press("Voices")
    page.wait(lambda: HTML_NAME in page.text(), "listed")
    assert page.all("main img") == []
    page.press("Enrol")
    page.one("#name").send_keys(HTML_NAME)
    page.record(2.0)
    page.press("Next sentence")
    assert "already enrolled" in page.one("#name-problem").text


def test_two_files_are_compared_and_a_file_without_audio_is_told(toy, tmp_path):
    page, _ = toy
    for name, samples in (("one.wav", anna(0)), ("two.flac", anna(1)), ("three.ogg", bert(0))):
        soundfile.write(tmp_path / name, samples, SAMPLE_RATE)
    (tmp_path / "notes.wav").write_text("no audio")
    page.press("Compare")
    assert not page.one(".card > .row .primary").is_enabled()
    expected = (("two.flac", "The same speaker"), ("three.ogg", "Not confirmed as the same speaker"))
    page.all("input[type=file]")[0].send_keys(str(tmp_path / "one.wav"))
    for name, title in expected:
        page.all("input[type=file]")[1].send_keys(str(tmp_path / name))
        page.press("Compare recordings")
        assert page.one("#verdict-title").text == title
    page.all("input[type=file]")[1].send_keys(str(tmp_path / "notes.wav"))
    page.press("Compare recordings")
    assert "notes.wav: expected audio" in page.one(".alert").text


def test_an_ended_server_is_told_and_the_recording_is_kept(toy):
    page, serving = toy
    enrol(page, "Anna", [anna(number) for number in range(3)])
    page.wait(lambda: "is enrolled" in page.text(), "enrolled")
    page.press("Verify")
    page.one("[data-state=idle]")
    page.speak(anna(4))
    page.record(2.0)
    serving.end()
    page.press("Verify voice")
    assert "does not answer" in page.one(".recorder .alert").text
    assert "Verify voice" in [button.text for button in page.all(".recorder button")]


def test_the_page_works_by_keyboard_and_fits_a_narrow_screen(toy):
    page, _ = toy
    driver = page.driver
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for _ in range(5):
        selected = page.one("[role=tab][aria-selected=true]")
        task = selected.text
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), task
        labelled_by = page.one("#panel").get_attribute("aria-labelledby")
        assert page.all("#panel h1") and labelled_by == selected.get_attribute("id")
        selected.send_keys("\ue014")  # right arrow
        page.wait(lambda task=task: page.one("[role=tab][aria-selected=true]").text != task, "the next tab")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    controls = "[...document.querySelectorAll('button, input, select')]"
    unnamed = f"return {controls}.filter(e => !e.innerText && !e.ariaLabel && !e.labels?.length).length"
    assert driver.execute_script(unnamed) == 0
    page.speak(anna(0))
    page.one("[aria-label=Record]").send_keys("\n")
    page.one("[aria-label=Stop]").send_keys("\ue00c")  # Escape
    page.one("[data-state=idle]")
    assert page.faults() == []


def test_a_refused_microphone_is_told(tmp_path):
    serving = Serving(tmp_path, "--model", str(write_toy_model_folder(tmp_path / "model")))
    with chromium(tmp_path / "none.wav", allows_microphone=False) as page:
        page.driver.get(serving.url)
        page.press("Record")
        assert "Microphone" in page.one(".recorder .alert").text
        page.one("[data-state=idle]")
    serving.end()
