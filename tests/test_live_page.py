"""The page Live in a headless Chromium with a microphone that speaks: the face is seen, talks, hushes, and goes."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.speech.waveform import SAMPLE_RATE, Speech
from media_files import write_sound
from service_server import Server, guarded, running
from studio_browser import PICTURES, Browser, browser, missing, save

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")
pytest.importorskip("hibari")

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

torch.set_num_threads(1)

TOKEN = "the-token-of-the-tests"
SESSIONS = int(os.environ.get("ATLDIFF_LIVE_SESSIONS", "3"))
"""How many follow each other in the test of what they leave behind."""

FACE = """
    const done = arguments[arguments.length - 1];
    const video = document.getElementById("live-video");
    const canvas = new OffscreenCanvas(64, 64);
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(video, 0, 0, 64, 64);
    const colours = context.getImageData(0, 0, 64, 64).data.filter((_, place) => place % 4 != 3);
    done([video.videoWidth, video.currentTime, ...colours]);
"""
LOUDNESS = """
    const done = arguments[arguments.length - 1];
    const stream = document.getElementById("live-video").srcObject;
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    let loudest = 0;
    const samples = new Float32Array(analyser.fftSize);
    const timer = setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        loudest = Math.max(loudest, ...samples.map(Math.abs));
    }, 20);
    setTimeout(() => { clearInterval(timer); context.close(); done(loudest); }, 1500);
"""


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("live-page")
    with guarded(folder, tiny_model, TOKEN, "--no-browser", verb="studio") as server:
        yield server


@pytest.fixture(scope="module")
def chromium(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With the sentence at its microphone, again and again."""
    sound = np.concatenate(list(Speech.open(speech).blocks(SAMPLE_RATE)))
    microphone = write_sound(tmp_path_factory.mktemp("devices") / "microphone.wav", sound[None], SAMPLE_RATE)
    with browser(f"--use-file-for-fake-audio-capture={microphone}") as opened:
        opened.driver.set_script_timeout(60)
        yield opened


@pytest.fixture
def page(server: Server, chromium: Browser) -> Iterator[Browser]:
    chromium.resize(1280, 900)
    chromium.open(f"http://127.0.0.1:{server.port}/live#token={TOKEN}")
    chromium.complaints()
    yield chromium
    chromium.driver.get("about:blank")
    assert chromium.complaints() == []


def begin(page: Browser, portrait: Path) -> None:
    page.put("portrait-file", portrait)
    page.click("consent")
    page.click("live-start")
    page.wait(lambda: page.find("live-talk").is_displayed() or page.text("live-error"))
    assert page.text("live-error") == ""
    page.wait(lambda: face(page)[0] > 0)


def face(page: Browser) -> np.ndarray:
    """The video's width, its time, and what it shows."""
    return np.array(page.driver.execute_async_script(FACE))


def loudness(page: Browser) -> float:
    return page.driver.execute_async_script(LOUDNESS)


def test_a_face_says_what_is_typed_and_what_is_spoken(page, portrait) -> None:
    begin(page, portrait)
    before = face(page)
    assert before[0] == 512
    page.wait(lambda: face(page)[1] > before[1] + 0.2)
    assert loudness(page) < 0.01
    page.find("live-text").send_keys(
        "Hello. This is a longer sentence, which lasts for a while, so that it is heard."
    )
    page.click("live-talk")
    page.run("document.getElementById('live-talk').requestSubmit()")
    page.wait(lambda: loudness(page) > 0.02)
    page.wait(lambda: page.text("live-state") == "Said.")
    seen = []
    page.click("live-microphone")
    page.wait(lambda: loudness(page) > 0.02)
    page.wait(lambda: seen.append(face(page)) or np.abs(seen[-1][2:] - seen[0][2:]).max() > 5)
    page.click("live-microphone")
    page.wait(lambda: loudness(page) < 0.01)
    page.click("live-stop")
    page.wait(page.find("live-start").is_displayed)
    assert page.run("return document.getElementById('live-video').srcObject") is None


def test_what_is_wrong_is_said_beside_its_field(page, portrait, word) -> None:
    page.click("live-start")
    page.wait(lambda: page.text("portrait-error") == "Choose a portrait first.")
    page.put("portrait-file", portrait)
    page.click("live-start")
    page.wait(lambda: "without consent" in page.text("consent-error"))
    page.put("portrait-file", word)
    page.wait(lambda: page.text("portrait-error"))
    page.click("consent")
    page.click("live-start")
    page.wait(lambda: page.find("live-start").is_enabled() and page.text("portrait-error"))
    complaints = page.complaints()
    assert all("422" in complaint for complaint in complaints)


def test_a_module_puts_a_face_into_any_page_of_the_origin(page, portrait) -> None:
    script = """
        const done = arguments[arguments.length - 1];
        (async () => {
            const { ATLDiffFace } = await import("/atldiff-live.js");
            const video = document.createElement("video");
            const face = new ATLDiffFace(video, {token: arguments[0], portrait: "/studio/portrait.jpg"});
            await face.ready;
            await face.speak("Hello.");
            const context = new AudioContext();
            const tone = context.createBuffer(1, context.sampleRate / 4, context.sampleRate);
            await face.speak(tone);
            face.interrupt();
            face.close();
            const wrong = new ATLDiffFace(video, {token: "a-token-that-is-wrong", portrait: "/studio/portrait.jpg"});
            done(await wrong.ready.catch((error) => [error.status, error.message]));
        })().catch((error) => done(String(error)));
    """
    assert page.driver.execute_async_script(script, TOKEN) == [401, "a bearer token is needed"]
    assert all("401" in complaint for complaint in page.complaints())


def test_sessions_leave_nothing_behind(server, page, portrait) -> None:
    def one() -> None:
        if page.find("live-start").is_enabled():
            page.click("live-start")
        page.wait(page.find("live-talk").is_displayed)
        page.wait(lambda: face(page)[0] > 0)
        page.click("live-stop")
        page.wait(lambda: free(server))

    page.put("portrait-file", portrait)
    page.click("consent")
    one()
    before, children = handles(server), server.children
    for _ in range(SESSIONS):
        one()
    assert server.children == children
    assert handles(server) <= before + 3


def free(server: Server) -> bool:
    figures = server.get("/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
    return "atldiff_live_sessions 0.0" in figures


def handles(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.skipif(not PICTURES, reason="makes a picture for docs: set ATLDIFF_STUDIO_PICTURES to a folder")
def test_a_picture_for_the_documentation(chromium, portrait, tmp_path) -> None:
    with running(tmp_path / "data", "--device", "cpu", "--no-browser", verb="studio") as server:
        chromium.resize(1280, 900)
        chromium.open(f"http://127.0.0.1:{server.port}/live")
        begin(chromium, portrait)
        chromium.find("live-text").send_keys("Hello. I am a face that says at once what you type.")
        chromium.run("document.getElementById('live-talk').requestSubmit()")
        chromium.wait(lambda: loudness(chromium) > 0.02)
        chromium.find("live-text").send_keys("And now something else")
        save(chromium.picture(), "live.png")
        chromium.click("live-stop")
