"""The studio's page: what is refused, lost, stopped or asked for, and in which words."""

from PIL import Image
from selenium.webdriver.common.keys import Keys

from studio_browser import Browser
from studio_steps import PHONE, TOKEN, fill, generate, jobs, remove


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
    page.wait(lambda: len(jobs(server)) == 2)
    assert before in jobs(server)


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
