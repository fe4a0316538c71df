"""A headless Chromium with the studio's page in it."""

import base64
import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from PIL import Image

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 60
PICTURES = os.environ.get("ATLDIFF_STUDIO_PICTURES")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless=new",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


def missing() -> str:
    """Why no browser can be driven here; empty if one can."""
    if not any(map(shutil.which, _NAMES)):
        return f"needs a browser: none of {', '.join(_NAMES)} is on the path"
    return "" if shutil.which("chromedriver") else "needs chromedriver on the path (Debian: chromium-driver)"


class Browser:
    """What the tests do with the page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """The page as one sees it for the first time."""
        self.driver.get(urljoin(address, "/health"))
        self.run("sessionStorage.clear()")
        self.driver.get(address)

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """What an element says to everyone, seen or only heard."""
        return self.run("return document.getElementById(arguments[0]).textContent.trim()", name)

    def click(self, name: str) -> None:
        element = self.find(name)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def put(self, name: str, path: Path) -> None:
        """Choose a file."""
        self.find(name).send_keys(str(path))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, is_true: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, PATIENCE_S, 0.05).until(lambda _: is_true())

    def wait_shown(self, name: str) -> None:
        self.wait(self.find(name).is_displayed)

    def focused(self) -> str:
        return self.run("return document.activeElement.id")

    def resize(self, width: int, height: int, **media: str) -> None:
        """Give the page this size in CSS pixels, and media features, ``prefers_color_scheme="dark"``."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return self.run("return document.documentElement.scrollWidth - window.innerWidth")

    def slow_down(self, upload_bytes_s: int = -1, offline: bool = False) -> None:
        """Limit what the page can send, or cut it off; without arguments nothing is limited."""
        limits = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": upload_bytes_s}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", limits)

    def sent(self, path: str) -> int:
        """How many requests the page has made to this path."""
        addresses = self.run("return performance.getEntriesByType('resource').map(({name}) => name)")
        return sum(address.endswith(path) for address in addresses)

    def save_downloads(self, folder: Path) -> None:
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})

    def picture(self) -> Image.Image:
        """What the window shows."""
        encoded = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")

    def complaints(self) -> list[str]:
        """What went wrong in the page's scripts, or was forbidden to them, since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["source"] in ("javascript", "security", "other")]


@contextlib.contextmanager
def browser(*arguments: str) -> Iterator[Browser]:
    """A browser with more command-line arguments."""
    options = Options()
    options.binary_location = next(filter(None, map(shutil.which, _NAMES)))
    for argument in (*_ARGUMENTS, *arguments):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root cannot have
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def save(picture: Image.Image, name: str) -> None:
    """Keep a picture for the documentation."""
    path = Path(str(PICTURES)) / name
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    assert path.stat().st_size < 300_000
