"""The studio's page: portrait and speech in, videos out."""

import re

import numpy as np
import pytest
from PIL import Image

from atldiff.media.provenance import INTACT, read_provenance
from dub_films import moving_frames
from media_files import write_video
from service_server import running
from studio_browser import PICTURES, By, save
from studio_steps import DESKTOP, PHONE, fill, generate, jobs, last_options


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
    page.wait((tmp_path / "portrait-word-neutral.mp4").is_file)
    assert read_provenance(tmp_path / "portrait-word-neutral.mp4").state == INTACT

    page.driver.refresh()
    page.wait_shown("video")
    assert len(jobs(server)) == 1
    page.click("delete")
    page.wait(lambda: page.text("announcer") == "Removed from the service.")
    assert page.find("empty").is_displayed()
    assert jobs(server) == set()


def test_a_video_keeps_its_motion(page, portrait, word, tmp_path) -> None:
    fill(page, portrait, word)
    assert not page.find("dub-field").is_displayed()
    film = write_video(tmp_path / "film.mp4", moving_frames(portrait, 12))
    page.put("portrait-file", film)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    assert page.find("dub-field").is_displayed()
    page.click("dub")
    page.click("consent")
    generate(page)
    assert last_options(page) == {"mode": "dub", "mouth": 1.0}
    assert page.text("facts").startswith("Dubbed")


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
        chromium.click("consent")
        for emotion in ("neutral", "surprised", "happy"):
            chromium.run("document.querySelector(`[name=emotion][value=${arguments[0]}]`).click()", emotion)
            chromium.click("generate")
            chromium.wait(chromium.find("progress").is_displayed)
            shown, busy = chromium.find("result"), chromium.find("progress")
            chromium.wait(lambda shown=shown, busy=busy: shown.is_displayed() and not busy.is_displayed())
        for name in ("show-landmarks", "show-mouth"):
            chromium.click(name)
        chromium.run("const v = document.getElementById('video'); v.controls = false; v.pause(); v.currentTime = 1.6")
        chromium.wait(lambda: chromium.run("return document.getElementById('video').seeking") is False)
        chromium.resize(1280, chromium.run("return document.documentElement.scrollHeight"))
        save(chromium.picture(), "studio-desktop.png")
        chromium.resize(*PHONE)
        chromium.run("scrollTo(0, 0)")
        top = chromium.picture()
        chromium.run("document.getElementById('speech-field').scrollIntoView()")
        both = Image.new("RGB", (2 * top.width + 24, top.height), "white")
        both.paste(top, (0, 0))
        both.paste(chromium.picture(), (top.width + 24, 0))
        save(both, "studio-phone.png")
