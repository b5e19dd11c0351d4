"""Time the page of ``verify.py serve``: from "stop speaking" to the answer. ``python benchmarks/page.py``.

Chromium records 3 s of real speech (``../shared/corpora/librispeech_excerpt``, or the file of --audio) from a
microphone that plays it, and stops; the time ends with the frame that shows the verdict. It includes resampling to
16 kHz, the checks, WAV and base64, HTTP on this machine, decoding, embedding, scoring and drawing. The second row is
the HTTP request alone, and the third the server's processor time for it, which other jobs on the machine hardly change.
Prints a table; needs Chromium, its driver and Selenium.
"""

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import processor_s
from inference import hardware

from tests.browser.chromium import SAMPLE_RATE, Page, chromium
from voice_biometrics.common.audio import read_audio
from voice_biometrics.inference import Recognizer

ROOT = Path(__file__).parents[1]
SPEECH_S = 3.0
LIMIT = "under 150 ms"
WAIT_FOR_VERDICT = """
const done = arguments[arguments.length - 1];
const start = performance.now();
new MutationObserver((_, observer) => {
  if (!document.querySelector("#verdict-title")) return;
  observer.disconnect();
  requestAnimationFrame(() => done(performance.now() - start));
}).observe(document.body, { childList: true, subtree: true });
document.querySelector("[aria-label=Stop]").click();
"""


def main() -> None:
    """Print the table."""
    options = parse_options()
    samples = read_audio(options.audio or next(iter(excerpts())), SAMPLE_RATE)
    enrolled, spoken = samples[: 3 * SAMPLE_RATE], samples[3 * SAMPLE_RATE : 6 * SAMPLE_RATE]
    with tempfile.TemporaryDirectory() as folder:
        capture, store = Path(folder) / "capture.wav", Path(folder) / "voices.db"
        soundfile.write(Path(folder) / "enrolled.wav", enrolled, SAMPLE_RATE)
        Recognizer(options.model, store).enrol("owner", [Path(folder) / "enrolled.wav"])
        command = [sys.executable, str(ROOT / "verify.py"), "serve", "--port", "0", "--store", str(store)]
        server = subprocess.Popen([*command, "--model", str(options.model)], stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().split()[1]
            started_s = processor_s([server.pid])
            requests_ms = time_requests(url, spoken, options.repeats)
            used_ms = 1000 * (processor_s([server.pid]) - started_s) / (options.repeats + 1)
            with chromium(capture) as page:
                page.speak(spoken)
                page.driver.get(url)
                page_ms = time_page(page, options.repeats)
        finally:
            server.terminate()
            server.wait()
    print(f"{hardware()}\n\n| 3 s of speech, {options.repeats} times | fastest | median | must reach |")
    print("|---|---|---|---|")
    print(f"| page: stop speaking to the answer | {words(page_ms)} | {LIMIT} |")
    print(f"| the request alone | {words(requests_ms)} | |")
    print(f"| the request alone, processor time of the server | | {used_ms:.0f} ms (mean) | |")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("pretrained"))
    parser.add_argument("--audio", type=Path, help="speech of one speaker, 6 s or more")
    parser.add_argument("--repeats", type=int, default=20)
    return parser.parse_args()


def excerpts() -> list[Path]:
    """Return the utterances of the excerpt of LibriSpeech, sorted."""
    found = sorted((ROOT / "../shared/corpora/librispeech_excerpt").rglob("*.ogg"))
    return found or sys.exit("no speech in ../shared; name a file: --audio")


def time_page(page: Page, repeats: int) -> list[float]:
    """Record, stop and wait for the verdict, repeatedly; milliseconds. The first, which warms up, does not count."""
    page.press("Verify")
    page.one("#listens").click()  # answer as soon as the speaker stops
    times_ms = []
    for _ in range(repeats + 1):
        page.start(SPEECH_S)
        times_ms.append(page.driver.execute_async_script(WAIT_FOR_VERDICT))
        page.press("Speak again")
    return times_ms[1:]


def time_requests(url: str, samples: np.ndarray, repeats: int) -> list[float]:
    """Send the same recording repeatedly; milliseconds. The first, which warms up, does not count."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    body = json.dumps({"name": "owner", "recording": base64.b64encode(file.getvalue()).decode()})
    headers = {"X-Voice-Biometrics": "1", "Content-Type": "application/json"}
    times_ms = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        connection = HTTPConnection(url.split("/")[2])
        connection.request("POST", "/api/verify", body, headers)
        assert connection.getresponse().status == 200
        times_ms.append(1000 * (time.perf_counter() - start))
    return times_ms[1:]


def words(times_ms: list[float]) -> str:
    """Return fastest and median as cells."""
    return f"{min(times_ms):.0f} ms | {np.median(times_ms):.0f} ms"


if __name__ == "__main__":
    main()
