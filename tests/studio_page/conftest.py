"""The studio's page in a headless Chromium, as people use it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atldiff.speech.waveform import SAMPLE_RATE, Speech
from media_files import write_sound
from service_server import Server, guarded

pytest.importorskip("fastapi")

from studio_browser import Browser, browser, missing
from studio_steps import DESKTOP, TOKEN, jobs, remove


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    with guarded(folder, tiny_model, TOKEN, "--no-browser", verb="studio") as server:
        yield server


@pytest.fixture(scope="session")
def chromium(portrait: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With the astronaut before its camera, and the sentence at its microphone."""
    if missing():
        pytest.skip(missing())
    folder = tmp_path_factory.mktemp("devices")
    (folder / "camera.mjpeg").write_bytes(5 * portrait.read_bytes())
    sound = np.concatenate(list(Speech.open(speech).blocks(SAMPLE_RATE)))
    microphone = write_sound(folder / "microphone.wav", sound[None], SAMPLE_RATE)
    devices = [f"--use-file-for-fake-video-capture={folder / 'camera.mjpeg'}"]
    with browser(*devices, f"--use-file-for-fake-audio-capture={microphone}") as opened:
        yield opened


@pytest.fixture
def page(server: Server, chromium: Browser) -> Iterator[Browser]:
    chromium.resize(*DESKTOP)
    chromium.open(f"http://127.0.0.1:{server.port}/#token={TOKEN}")
    chromium.complaints()
    yield chromium
    chromium.slow_down()
    chromium.driver.get("about:blank")
    remove(server, *jobs(server))
    assert chromium.complaints() == []


@pytest.fixture(scope="module")
def two_faces(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut twice, 1000×512; the one on the right is larger."""
    one = Image.open(portrait).convert("RGB")
    picture = Image.new("RGB", (1000, 512), "gray")
    picture.paste(one.resize((420, 420)), (20, 92))
    picture.paste(one, (470, 0))
    path = tmp_path_factory.mktemp("faces") / "two.png"
    picture.save(path)
    return path
