"""Chromium without a window, whose microphone plays a WAV file: ``with chromium(capture) as browser``."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 60
SAMPLE_RATE = 16000
FRAME_S = 0.02  # of the recorder's levels


class Page:
    """A page in Chromium. capture : the WAV file that the microphone plays, from its start at each recording."""

    def __init__(self, driver: webdriver.Chrome, capture: Path) -> None:
        self.driver, self.capture = driver, capture

    def speak(self, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
        """Let the microphone hear samples, float (samples,), from the next recording on."""
        soundfile.write(self.capture, samples, rate, subtype="PCM_16")

    def one(self, selector: str) -> WebElement:
        """Wait until a visible element matches a CSS selector, and return it."""
        return self.wait(lambda: next((e for e in self.all(selector) if e.is_displayed()), None), selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements that match a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def press(self, label: str) -> None:
        """Press the button with this text or label."""

        def find() -> WebElement | None:
            for button in self.all("button"):
                if button.is_displayed() and label in (button.text.strip(), button.get_attribute("aria-label")):
                    return button
            return None

        self.wait(find, label).click()

    def wait(self, condition, what: str):
        """Return what ``condition`` returns once it is true; elements may be replaced meanwhile."""
        waiting = WebDriverWait(self.driver, WAIT_S, 0.05, [StaleElementReferenceException])
        try:
            return waiting.until(lambda _: condition())
        except TimeoutException as error:
            raise AssertionError(f"not found: {what}; the page says {self.text()!r}") from error

    def text(self) -> str:
        """Return the text of the panel."""
        return " ".join(element.text for element in self.all("main"))

    def record(self, duration_s: float) -> None:
        """Press record, wait until as much was recorded, and press stop."""
        self.start(duration_s)
        self.stop()

    def start(self, duration_s: float) -> None:
        """Press record, and wait until as much was recorded."""
        self.press("Record") if self.all("[aria-label=Record]") else self.press("Record again")
        self.one("[data-state=recording]")
        frames = "return Number(document.querySelector('.recorder').dataset.frames || 0)"
        self.wait(lambda: self.driver.execute_script(frames) >= duration_s / FRAME_S, f"{duration_s} s recorded")

    def stop(self) -> None:
        """Press stop; the recording may have reached its longest duration before."""
        self.driver.execute_script("document.querySelector('[aria-label=Stop]')?.click()")
        self.one("[data-state=review]")

    def faults(self) -> list[str]:
        """Return the errors in the console since the last call."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@contextlib.contextmanager
def chromium(capture: Path, *flags: str, allows_microphone: bool = True) -> Iterator[Page]:
    """Run Chromium with further ``flags``; skips the test where it or its driver is missing."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage",
        "use-fake-device-for-media-stream", f"use-file-for-fake-audio-capture={capture}",
        "autoplay-policy=no-user-gesture-required", "mute-audio",
        *flags,
        "use-fake-ui-for-media-stream" if allows_microphone else "deny-permission-prompts",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(paths[1], env=os.environ | {"SE_AVOID_STATS": "true"}))
    try:
        yield Page(driver, capture)
    finally:
        driver.quit()
