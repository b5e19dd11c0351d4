"""Time the page without a server in Chromium against ONNX Runtime in Python: ``python benchmarks/browser.py``.

Needs selenium and Debian's chromium and chromium-driver. 3 s of real speech (as inference.py) to an embedding, one
thread each, and a recording of 3 s to the page's verdict. The systems take turns of --seconds, --turns times, so that
other jobs slow them equally. Processor time, of this process or of the browser, excludes other jobs.
--onnxruntime_web is the npm package; without it `verify.py page` downloads it.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).parents[1]))

from inference import hardware, speech_of

from voice_biometrics.inference.embedder import Embedder
from voice_biometrics.inference.model_folder import read_model_folder

ROOT = Path(__file__).parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
COLUMNS = (
    "| 3 s to | system | fastest (median) | processor time | cosine to Python | must reach |\n|---|---|---|---|---|---|"
)
LIMITS = {"embedding, Chromium, wasm": "under 60 ms"}
PREPARE = """
const [samples, done] = arguments;
(async () => {
  const [{ load }, { LocalBackend }, { MemoryStore }, { encodeWav }] = await Promise.all(
    ["browser", "backend-local", "voice-store", "voice"].map((name) => import(`./${name}.js`)),
  );
  const parts = { ...(await load()), store: new MemoryStore() };
  const backend = new LocalBackend(async () => parts);
  const { sample_rate } = await backend.info();
  const speech = Float32Array.from(samples);
  const recording = new Blob([encodeWav(speech, sample_rate)]);
  await backend.enrol("anna", [recording]);
  window.jobs = { embed: () => parts.embed(speech), verify: () => backend.verify("anna", recording) };
  window.time = async (job, seconds) => {
    const times = [];
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) {
      const start = performance.now();
      await window.jobs[job]();
      times.push((performance.now() - start) / 1000);
    }
    return times;
  };
  return [...(await parts.embed(speech))];
})().then(done, (error) => done(String(error.stack)));
"""
TIME = "const [job, seconds, done] = arguments; window.time(job, seconds).then(done);"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "pretrained")
    parser.add_argument("--audio", type=Path, default=ROOT / "../shared/corpora/speechocean762/WAVE")
    parser.add_argument("--onnxruntime_web")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    samples = speech_of(options, 3.0)
    print(f"{hardware()}\n\n{COLUMNS}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "int8"):
            page = write_page(Path(folder) / precision, precision, options)
            for row in rows(page, precision, samples, options):
                print(f"| {' | '.join(row)} |", flush=True)


def write_page(page: Path, precision: str, options: argparse.Namespace) -> Path:
    """Write the page by the command."""
    package = ["--onnxruntime_web", options.onnxruntime_web] if options.onnxruntime_web else []
    command = [sys.executable, str(ROOT / "verify.py"), "page", str(page), "--model", str(options.model)]
    subprocess.run([*command, "--precision", precision, *package], check=True, stdout=subprocess.DEVNULL)
    return page


def rows(page: Path, precision: str, samples: np.ndarray, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return the rows of a precision."""
    embed = Embedder(read_model_folder(options.model), precision)
    with opened(page) as driver:
        found = driver.execute_async_script(PREPARE, samples.tolist())
        if isinstance(found, str):
            sys.exit(f"the page failed: {found}")
        cosine = found @ embed(samples) / np.linalg.norm(found) / np.linalg.norm(embed(samples))
        return table(driver, precision, lambda: embed(samples), cosine, options)


@contextmanager
def opened(page: Path) -> Iterator[webdriver.Chrome]:
    """Serve a folder and open it in Chromium."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=page)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver = chromium()
        try:
            driver.get(f"http://localhost:{server.server_port}/")
            yield driver
        finally:
            driver.quit()
            server.shutdown()


def table(
    driver: webdriver.Chrome, precision: str, embed: Callable, cosine: float, options: argparse.Namespace
) -> list[tuple[str, ...]]:
    """Let the systems take turns, and return their rows."""
    jobs = {
        "embedding, ONNX Runtime, Python": (lambda: repeated(embed, options.seconds), [os.getpid()]),
        "embedding, Chromium, wasm": (lambda: in_browser(driver, "embed", options.seconds), browser_pids(driver)),
        "verdict, Chromium, wasm": (lambda: in_browser(driver, "verify", options.seconds), browser_pids(driver)),
    }
    times_s: dict[str, list[float]] = {name: [] for name in jobs}
    used_s = dict.fromkeys(jobs, 0.0)
    for _ in range(options.turns):
        for name, (job, pids) in jobs.items():
            before = processor_s(pids)
            times_s[name] += job()
            used_s[name] += processor_s(pids) - before
    first, *_ = jobs
    found = {name: (min(times_s[name]), np.median(times_s[name]), used_s[name] / len(times_s[name])) for name in jobs}
    made = []
    for name, numbers in found.items():
        what, system = name.split(", ", 1)
        fastest, median, used = (f"{1000 * number:.1f}" for number in numbers)
        ratios = [
            f" ({number / one:.1f} x)" if name != first else ""
            for number, one in zip(numbers, found[first], strict=True)
        ]
        words = f"{fastest} ms{ratios[0]} (median {median}{ratios[1]})"
        seen = f"{cosine:.10f}" if what == "embedding" and name != first else ""
        made.append((what, f"{system}, {precision}", words, f"{used} ms{ratios[2]}", seen, LIMITS.get(name, "")))
    return made


class Quiet(SimpleHTTPRequestHandler):
    """Serves the folder without a log."""

    def log_message(self, *args: object) -> None:
        """Print nothing."""


def chromium() -> webdriver.Chrome:
    """Start Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(
        options, Service(shutil.which("chromedriver"), env=os.environ | {"SE_AVOID_STATS": "true"})
    )
    driver.set_script_timeout(600)
    return driver


def repeated(work: Callable[[], object], seconds: float) -> list[float]:
    """Repeat ``work`` for some seconds and return the time of each call, s."""
    times_s, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - start)
    return times_s


def in_browser(driver: webdriver.Chrome, job: str, seconds: float) -> list[float]:
    """The same in the browser."""
    return driver.execute_async_script(TIME, job, seconds)


def browser_pids(driver: webdriver.Chrome) -> list[int]:
    """Return the processes of the browser that run pages."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = path.read_text().rpartition(")")[2].split()
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    below, found = [driver.service.process.pid], []
    while below:
        below += children.get(pid := below.pop(), [])
        if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return found


def processor_s(pids: list[int]) -> float:
    """Return the processor time that processes have used, s."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS_PER_S


if __name__ == "__main__":
    main()
