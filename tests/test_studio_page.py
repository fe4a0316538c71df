"""The studio's page in a headless Chromium, as people use it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atldiff.provenance import INTACT, read_provenance
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from media_files import write_sound
from service_server import Server, running
from studio_browser import Browser, By, browser, missing

pytest.importorskip("fastapi")

from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

TOKEN = "the-token-of-the-tests"
DESKTOP, PHONE = (1280, 900), (360, 760)
PICTURES = os.environ.get("ATLDIFF_STUDIO_PICTURES")


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "tokens").write_text(TOKEN)
    model = ["--model", str(tiny_model), "--device", "cpu", "--token-file", str(folder / "tokens")]
    with running(folder / "data", *model, "--no-browser", verb="studio") as server:
        yield server


@pytest.fixture(scope="module")
def chromium(portrait: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With the astronaut before its camera, and the sentence at its microphone."""
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


def fill(page: Browser, portrait: Path, speech: Path) -> None:
    page.put("portrait-file", portrait)
    page.put("speech-file", speech)
    page.click("consent")


def generate(page: Browser) -> None:
    page.click("generate")
    page.wait_shown("video")
    page.wait_shown("result")


def remove(server: Server, *job_ids: str) -> None:
    for job_id in job_ids:
        server.request("DELETE", f"/v1/videos/{job_id}", headers={"Authorization": f"Bearer {TOKEN}"})


def jobs(server: Server) -> set[str]:
    return {path.name for path in (server.data / "jobs").iterdir()}


def last_options(page: Browser) -> dict:
    script = """
        const done = arguments[arguments.length - 1];
        const token = sessionStorage.getItem("atldiff-token");
        fetch(`/v1/videos/${sessionStorage.getItem("atldiff-job")}`, {headers: {Authorization: `Bearer ${token}`}})
            .then((answer) => answer.json()).then(({options}) => done(options));
    """
    return page.driver.execute_async_script(script)


def test_a_video_is_made_and_plays(server, page, portrait, word, tmp_path) -> None:
    fill(page, portrait, word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    generate(page)
    assert page.run("return location.hash") == ""
    shown = "const v = document.getElementById('video'); return"
    assert page.run(f"{shown} [v.videoWidth, v.videoHeight, v.error]") == [512, 512, None]
    assert page.run(f"{shown} v.duration") == pytest.approx(1.2, abs=0.1)
    page.run("const v = document.getElementById('video'); v.loop = true; v.play()")
    before = page.run(f"{shown} v.currentTime")
    page.wait(lambda: page.run(f"{shown} v.currentTime") != before)
    assert page.text("announcer") == "The video is ready."
    assert page.text("tag") == "Synthetic"
    assert page.find("portrait-picture").is_displayed()
    assert "512 × 512 · 25 frames/s" in page.text("facts")
    page.save_downloads(tmp_path)
    page.click("download")
    page.wait((tmp_path / "atldiff.mp4").is_file)
    assert read_provenance(tmp_path / "atldiff.mp4").state == INTACT

    page.driver.refresh()
    page.wait_shown("video")
    assert len(jobs(server)) == 1
    page.click("delete")
    page.wait(lambda: page.text("announcer") == "Removed from the service.")
    assert page.find("empty").is_displayed()
    assert jobs(server) == set()


def test_landmarks_and_mouth_are_shown_when_asked_for(page, portrait, word) -> None:
    fill(page, portrait, word)
    page.run("document.getElementById('head_motion').value = 0")
    generate(page)
    assert not page.find("overlay").is_displayed()
    assert not page.find("mouth-plot").is_displayed()
    page.click("show-landmarks")
    page.click("show-mouth")
    page.run("const v = document.getElementById('video'); v.pause(); v.currentTime = 0.6")
    now = "return Number(document.querySelector('#mouth-graph .now').getAttribute('x1'))"
    page.wait(lambda: page.run(now) == pytest.approx(1000 * 15.5 / 30, abs=40))
    drawn = """
        const canvas = document.getElementById("overlay");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const box = [1, 1, 0, 0];
        for (let index = 3; index < pixels.length; index += 4) {
            if (!pixels[index]) continue;
            const x = (((index - 3) / 4) % canvas.width) / canvas.width;
            const y = Math.floor((index - 3) / 4 / canvas.width) / canvas.height;
            [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
            [box[2], box[3]] = [Math.max(box[2], x), Math.max(box[3], y)];
        }
        return box;
    """
    page.wait(lambda: page.run(drawn)[2] > 0)
    left, top, right, bottom = page.run(drawn)
    assert (left, top, right, bottom) == pytest.approx((0.35, 0.16, 0.53, 0.36), abs=0.08)
    line = page.run("return document.querySelector('#mouth-graph .line').getAttribute('d')")
    assert len(re.findall(r"[ML]", line)) == 30
    assert "% of the eyes" in page.text("mouth-value")
    page.run("""
        const graph = document.getElementById("mouth-graph");
        graph.dispatchEvent(new MouseEvent("click", {clientX: graph.getBoundingClientRect().right}));
    """)
    page.wait(lambda: page.run("return document.getElementById('video').currentTime") > 1.1)
    page.resize(*PHONE)
    assert page.overflow() <= 0
    page.click("show-landmarks")
    assert not page.find("overlay").is_displayed()


def test_landmarks_of_a_very_long_video_can_be_plotted(page) -> None:
    script = """
        const done = arguments[arguments.length - 1];
        const face = Array.from({length: 68}, (_, index) => [index % 7, index % 11]);
        import("/studio/landmarks.js")
            .then(({LandmarkViews}) => new LandmarkViews().take({landmarks: Array(150000).fill(face), fps: 25}))
            .then(() => done(document.getElementById("mouth-end").textContent), (error) => done(String(error)));
    """
    assert page.driver.execute_async_script(script) == "6000.0 s"


def test_without_consent_nothing_is_sent(server, page, portrait, word) -> None:
    fill(page, portrait, word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    page.click("consent")
    page.click("generate")
    page.wait(lambda: page.text("consent-error"))
    assert page.text("consent-error") == "Tick this first: without consent nothing is made."
    assert page.focused() == "consent"
    assert not page.find("progress").is_displayed()
    assert jobs(server) == set()
    page.click("consent")
    assert page.text("consent-error") == ""
    page.put("speech-file", word)
    assert not page.find("consent").is_selected()


def test_what_is_missing_is_said_beside_its_field(page) -> None:
    page.click("generate")
    page.wait(lambda: page.text("portrait-error"))
    assert page.text("portrait-error") == "Choose a portrait first."
    assert page.text("speech-error") == "Choose or record some speech first."
    assert page.focused() == "portrait-drop"
    page.resize(*PHONE)
    assert page.overflow() <= 0


def test_what_the_service_refuses_is_said_beside_its_field(page, portrait, word, tmp_path) -> None:
    Image.new("RGB", (300, 200), "navy").save(tmp_path / "blank.png")
    page.put("portrait-file", tmp_path / "blank.png")
    page.wait(lambda: page.text("portrait-error"))
    assert page.text("portrait-error") == (
        "No face found in the portrait (300×200); expected a face towards the camera."
    )
    (tmp_path / "speech.mp3").write_text("these are words, not sound")
    fill(page, portrait, tmp_path / "speech.mp3")
    page.wait(lambda: page.text("portrait-error") == "" and page.text("portrait-note"))
    page.click("generate")
    page.wait(lambda: page.text("speech-error"))
    assert "cannot be read" in page.text("speech-error")
    assert page.focused() == "speech-choose"
    assert page.find("generate").is_enabled()

    page.run("document.querySelector('details').open = false; document.getElementById('seed').value = '1.5'")
    page.click("generate")
    page.wait(lambda: page.text("seed-error"))
    assert page.text("seed-error") == "Expected a whole number from 0 to 1,099,511,627,775."
    assert page.focused() == "seed"


def test_one_of_several_faces_is_chosen(page, two_faces, word) -> None:
    fill(page, two_faces, word)
    page.wait(lambda: page.text("portrait-note") == "2 faces found. Choose the one to animate.")
    left, right = page.driver.find_elements(By.CSS_SELECTOR, ".faces label")
    assert left.location["x"] < right.location["x"]
    assert [box.find_element(By.TAG_NAME, "input").is_selected() for box in (left, right)] == [False, True]
    left.click()
    assert left.find_element(By.TAG_NAME, "input").is_selected()
    assert not page.find("consent").is_selected()
    page.click("consent")
    generate(page)
    assert last_options(page)["face"] == 1
    assert page.run("return document.getElementById('video').videoWidth") == 1000
    page.resize(*PHONE)
    assert page.overflow() <= 0


def test_the_controls_become_options(page, portrait, word) -> None:
    fill(page, portrait, word)
    page.run("document.querySelector('[name=emotion][value=happy]').click()")
    page.run("""for (const [id, value] of [["intensity", 0.8], ["mouth", 1.25], ["head_motion", 0]]) {
        const input = document.getElementById(id);
        input.value = value;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    }""")
    page.run("document.querySelector('details').open = true")
    page.click("blink")
    page.click("badge")
    for name, value in (("seed", "7"), ("steps", "2")):
        page.find(name).clear()
        page.find(name).send_keys(value)
    generate(page)
    expected = {"emotion": "happy", "intensity": 0.8, "mouth": 1.25, "head_motion": 0.0, "blink": "off"}
    assert last_options(page) == expected | {"seed": 7, "steps": 2, "badge": True}


def test_the_examples_need_no_upload_and_work_can_be_stopped(server, page) -> None:
    page.click("try")
    page.wait(lambda: page.text("portrait-note") == "One face found." and page.text("speech-name") == "speech.flac")
    assert page.focused() == "consent"
    page.wait(lambda: page.text("speech-place") == "0:00 / 0:07")
    page.click("consent")
    page.run("document.getElementById('steps').value = 8")
    page.click("generate")
    page.wait(lambda: "Frame" in page.text("progress-text"))
    page.wait_shown("preview")
    assert page.run("return document.getElementById('preview').naturalWidth") == 512
    assert len(jobs(server)) == 1
    page.click("cancel")
    page.wait(lambda: page.text("announcer") == "Stopped, and removed.")
    page.wait(lambda: jobs(server) == set())
    assert page.find("empty").is_displayed()
    assert page.find("generate").is_enabled()


def test_a_picture_is_taken_and_speech_recorded(page) -> None:
    page.click("portrait-camera")
    page.wait(lambda: page.run("return document.getElementById('camera-view').videoWidth"))
    page.click("camera-take")
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    assert not page.find("camera").is_displayed()
    page.click("speech-record")
    page.wait(lambda: page.text("speech-time") == "0:01")
    page.click("speech-stop")
    page.wait(lambda: re.fullmatch("0:00 / 0:0[12]", page.text("speech-place")))
    page.click("consent")
    generate(page)
    assert 1 <= page.run("return document.getElementById('video').duration") < 2


def test_what_is_typed_is_said(server, page, portrait, word) -> None:
    page.put("portrait-file", portrait)
    page.click("speech-write")
    assert page.focused() == "speech-text"
    page.click("consent")
    page.click("generate")
    page.wait(lambda: page.text("speech-error") == "Type what is to be said first.")
    assert page.focused() == "speech-text"
    page.find("speech-text").send_keys("你好")
    page.click("consent")
    page.click("generate")
    page.wait(lambda: "nothing that the voice can say" in page.text("speech-error"))
    page.find("speech-text").send_keys(" hello")
    assert not page.find("consent").is_selected()
    page.click("consent")
    generate(page)
    assert page.run("return document.getElementById('video').duration") > 0.5
    page.put("speech-file", word)
    assert not page.find("speech-text").is_displayed()
    page.click("speech-clear")
    assert page.find("speech-drop").is_displayed()


def test_the_token_is_asked_for(server, page, portrait, word) -> None:
    page.open(f"http://127.0.0.1:{server.port}/")
    fill(page, portrait, word)
    page.click("generate")
    page.wait_shown("token-field")
    page.find("token").send_keys(TOKEN)
    generate(page)


def test_a_service_that_is_gone_is_told(page, portrait, word) -> None:
    fill(page, portrait, word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    page.slow_down(offline=True)
    page.click("generate")
    page.wait(lambda: page.text("form-error"))
    assert page.text("form-error") == "The service does not answer; see whether it is still running."
    page.put("speech-file", word)
    assert page.text("form-error") == ""


def start_long_work(page: Browser) -> None:
    page.click("try")
    page.wait(lambda: page.text("portrait-note") == "One face found." and page.focused() == "consent")
    page.click("consent")
    page.run("document.getElementById('steps').value = 8")
    page.find("generate").send_keys(Keys.ENTER)
    page.wait(lambda: "Frame" in page.text("progress-text"))


def test_a_connection_that_is_lost_is_told_and_taken_up_again(server, page) -> None:
    start_long_work(page)
    page.slow_down(offline=True)
    page.wait(lambda: page.text("progress-text") == "The connection is lost; trying again …")
    assert page.text("announcer") == "The connection is lost; trying again …"
    page.slow_down()
    page.wait(lambda: "Frame" in page.text("progress-text"))
    page.driver.refresh()
    page.wait(lambda: "Frame" in page.text("progress-text"))
    assert not page.find("generate").is_enabled()
    assert "forgets portrait and speech" in page.text("portrait-note")

    remove(server, *jobs(server))
    page.wait(lambda: page.text("stage-error").startswith("This video is no longer there"))
    assert page.find("empty").is_displayed()
    assert page.find("generate").is_enabled()
    page.driver.refresh()
    page.wait(lambda: page.find("empty").is_displayed())
    assert page.text("stage-error") == ""


def test_a_video_that_expired_is_told_after_a_reload(page) -> None:
    page.run(f"sessionStorage.setItem('atldiff-job', '{'0' * 22}')")
    page.driver.refresh()
    page.wait(lambda: page.text("stage-error").startswith("This video is no longer there"))
    assert page.run("return sessionStorage.getItem('atldiff-job')") is None


def test_sending_can_be_stopped_and_the_keyboard_goes_on_where_it_was(server, page, portrait, word) -> None:
    fill(page, portrait, word)
    generate(page)
    (before,) = jobs(server)
    page.click("consent")
    page.click("consent")
    page.slow_down(upload_bytes_s=4000)
    page.click("generate")
    page.wait(lambda: page.text("progress-text") == "Sending …")
    page.click("cancel")
    page.wait(lambda: page.text("announcer") == "Stopped; no video is made.")
    assert [page.text(f"{name}-error") for name in ("form", "stage")] == ["", ""]
    assert not page.find("progress").is_displayed()
    assert page.find("video").is_displayed()
    assert page.focused() == "generate"
    page.slow_down()
    page.wait(lambda: jobs(server) == {before})
    page.find("generate").send_keys(Keys.ENTER)
    page.wait(lambda: page.focused() == "cancel")
    page.wait(lambda: page.focused() == "video")
    assert page.find("result").is_displayed()
    page.wait(lambda: before not in jobs(server))


def test_a_file_that_has_changed_or_is_too_large_is_not_sent(server, page, portrait, word, tmp_path) -> None:
    own = tmp_path / "own.jpg"
    own.write_bytes(portrait.read_bytes())
    fill(page, own, word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    own.write_bytes(portrait.read_bytes() + b"more")
    page.click("generate")
    page.wait(lambda: "has changed, or is gone. Choose it again." in page.text("portrait-error"))
    assert page.text("form-error") == ""

    searches = page.sent("/v1/faces")
    for name in ("portrait", "speech"):
        with (tmp_path / "large.png").open("wb") as file:
            file.truncate(33 * 2**20)
        page.put(f"{name}-file", tmp_path / "large.png")
        page.wait(lambda name=name: page.text(f"{name}-error"))
        assert page.text(f"{name}-error") == "The file has 33 MiB; at most 32 MiB can be sent."
    with (tmp_path / "half.png").open("wb") as file:
        file.truncate(32 * 2**20 - 10_000)
    page.put("speech-file", tmp_path / "half.png")
    page.put("portrait-file", portrait)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    page.click("consent")
    page.click("generate")
    page.wait(lambda: page.text("speech-error").startswith("Portrait and speech have 32.1 MiB together"))
    assert page.sent("/v1/faces") == searches + 1
    assert page.sent("/v1/videos") == 0
    assert jobs(server) == set()


def test_a_recording_is_ended_before_it_is_sent(page, portrait, word) -> None:
    fill(page, portrait, word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    page.click("speech-record")
    page.wait_shown("speech-recording")
    page.click("generate")
    page.wait(lambda: page.text("speech-error") == "Stop the recording first.")
    assert page.focused() == "speech-stop"
    page.put("speech-file", word)
    assert not page.find("speech-recording").is_displayed()
    assert page.text("speech-name") == "word.wav"
    assert page.sent("/v1/videos") == 0


def test_a_token_is_tried_at_once(server, page, two_faces, word) -> None:
    page.open(f"http://127.0.0.1:{server.port}/")
    fill(page, two_faces, word)
    page.wait_shown("token-field")
    assert page.text("token-error") == "This service asks for a token; see where it was started."
    for wrong, words in (
        ("пароль", "A token has letters a to z, digits and signs only."),
        ("not-the-token-of-the-tests", "The service does not take this token; see where it was started."),
    ):
        page.find("token").clear()
        page.find("token").send_keys(wrong, Keys.TAB)
        page.wait(lambda words=words: page.text("token-error") == words)
    page.find("token").clear()
    page.find("token").send_keys(TOKEN, Keys.ENTER)
    page.wait(lambda: page.text("portrait-note") == "2 faces found. Choose the one to animate.")
    assert not page.find("token-field").is_displayed()
    page.wait(lambda: page.run("return document.activeElement.name") == "face-choice")
    assert jobs(server) == set()
    generate(page)


def test_a_token_in_the_address_is_taken_on_the_open_page(server, page, portrait) -> None:
    page.run(f"sessionStorage.setItem('atldiff-job', '{'0' * 22}')")
    page.run("sessionStorage.setItem('atldiff-token', 'an-outdated-token')")
    page.driver.refresh()
    page.wait_shown("token-field")
    assert page.run("return sessionStorage.getItem('atldiff-job')")
    page.put("portrait-file", portrait)
    page.wait(lambda: page.text("portrait-note") == "")
    page.driver.get(f"http://127.0.0.1:{server.port}/#token={TOKEN}")
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    assert page.run("return location.hash") == ""
    assert not page.find("token-field").is_displayed()
    page.wait(lambda: page.text("stage-error").startswith("This video is no longer there"))


def test_the_number_of_a_face_at_the_edge_is_shown(page, portrait, tmp_path) -> None:
    face = Image.open(portrait).crop((130, 20, 330, 220))
    picture = Image.new("RGB", (400, 200), "gray")
    for left in (0, 200):
        picture.paste(face, (left, -50))
    picture.save(tmp_path / "edge.png")
    page.resize(*PHONE)
    page.put("portrait-file", tmp_path / "edge.png")
    page.wait(lambda: "2 faces found" in page.text("portrait-note"))
    places = page.run("""
        const top = (element) => element.getBoundingClientRect().top;
        const numbers = [...document.querySelectorAll(".faces span")];
        return numbers.map((number) => top(number) - top(document.getElementById("portrait-picture")));
    """)
    assert min(places) >= -0.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(page, two_faces, word, scheme) -> None:
    fill(page, two_faces, word)
    page.wait(lambda: "faces" in page.text("portrait-note"))
    page.run("document.querySelector('details').open = true")
    page.resize(*PHONE, prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    assert page.overflow() <= 0
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "checkbox", "radio", "slider", "spinbutton", "link", "textbox")
    nodes = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    assert len(nodes) > 20
    assert [node["role"]["value"] for node in nodes if not node["name"]["value"].strip()] == []
    pairs = page.run("""
        const colour = (element, name) => getComputedStyle(element)[name].match(/[0-9.]+/g).slice(0, 3).map(Number);
        const find = (selector) => document.querySelector(selector);
        return [["body", ".place"], [".field", ".note"], [".field", "#form-error"], ["#generate", "#generate"]].map(
            ([ground, words]) => [colour(find(ground), "backgroundColor"), colour(find(words), "color")]);
    """)
    for ground, words in pairs:
        assert contrast(ground, words) >= 4.5
    moving = "return getComputedStyle(document.getElementById('progress-bar')).animationName"
    assert page.run(moving) == "none"


def contrast(*colours: list[float]) -> float:
    """Of two colours, 0 to 255, as WCAG 2 has it."""
    shares = np.array(colours) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.skipif(not PICTURES, reason="makes pictures for docs/studio.md: set ATLDIFF_STUDIO_PICTURES to a folder")
def test_pictures_for_the_documentation(chromium, tmp_path) -> None:
    with running(tmp_path / "data", "--device", "cpu", "--no-browser", verb="studio") as server:
        chromium.resize(*DESKTOP)
        chromium.open(f"http://127.0.0.1:{server.port}/")
        chromium.click("try")
        chromium.wait(lambda: chromium.text("portrait-note") and chromium.text("speech-name"))
        chromium.run("document.querySelector('[name=emotion][value=happy]').click()")
        chromium.click("consent")
        generate(chromium)
        for name in ("show-landmarks", "show-mouth"):
            chromium.click(name)
        chromium.run("const v = document.getElementById('video'); v.controls = false; v.pause(); v.currentTime = 1.6")
        chromium.wait(lambda: chromium.run("return document.getElementById('video').seeking") is False)
        chromium.resize(1280, chromium.run("return document.documentElement.scrollHeight"))
        save(chromium.picture(), "studio-desktop.png")
        chromium.resize(*PHONE)
        chromium.run("scrollTo(0, 0)")
        top = chromium.picture()
        chromium.run("document.getElementById('stage').scrollIntoView()")
        both = Image.new("RGB", (2 * top.width + 24, top.height), "white")
        both.paste(top, (0, 0))
        both.paste(chromium.picture(), (top.width + 24, 0))
        save(both, "studio-phone.png")


def save(picture: Image.Image, name: str) -> None:
    path = Path(str(PICTURES)) / name
    picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    assert path.stat().st_size < 300_000
