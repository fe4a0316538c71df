"""The studio's page: takes side by side, parts of the speech, examples, warnings, and what stays in view."""

import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from atldiff.face.sitter import read_sitter
from atldiff.options import EMOTIONS
from studio_browser import Browser, By
from studio_steps import DESKTOP, PHONE, fill, generate, jobs, last_options
from test_results import covered

WIDTHS = [(390, 844), (820, 1180), (1440, 900)]


def takes(page: Browser) -> list[tuple[str, str, str]]:
    """Name, note and whether it is shown, of each take."""
    cards = page.run("""
        const cards = [...document.querySelectorAll("#take-list button")];
        const text = (card, part) => card.querySelector(part).textContent;
        return cards.map((card) => [text(card, "strong"), text(card, "span"), card.getAttribute("aria-pressed")]);
    """)
    return [tuple(card) for card in cards]


def test_takes_are_kept_side_by_side_with_names(server, page, portrait, word) -> None:
    fill(page, portrait, word)
    generate(page)
    assert not page.find("takes").is_displayed()
    page.run("document.querySelector('[name=emotion][value=happy]').click()")
    page.run("document.getElementById('seed').value = 7")
    page.find("generate").send_keys(Keys.ENTER)
    page.wait(lambda: len(takes(page)) == 2 and page.find("result").is_displayed())
    assert takes(page) == [
        ("Neutral", "portrait.jpg · word.wav", "false"),
        ("Happy 50 %", "portrait.jpg · word.wav · seed 7", "true"),
    ]
    pictures = "return [...document.querySelectorAll('#take-list img')].map((one) => one.naturalWidth)"
    page.wait(lambda: page.run(pictures) == [512, 512])
    assert page.text("facts").startswith("Happy 50 % · ")
    page.run("document.querySelector('#take-list button').click()")
    page.wait(lambda: page.find("result").is_displayed() and page.text("facts").startswith("Neutral · "))
    assert "emotion" not in last_options(page) or last_options(page)["emotion"] == "neutral"
    page.driver.refresh()
    page.wait_shown("video")
    assert [pressed for _, _, pressed in takes(page)] == ["true", "false"]
    page.click("delete")
    page.wait(lambda: page.text("announcer") == "Removed from the service.")
    page.wait(lambda: page.text("facts").startswith("Happy 50 % · "))
    assert len(jobs(server)) == 1
    assert not page.find("takes").is_displayed()


def move(page: Browser, name: str, value: float) -> None:
    script = """
        const slider = document.getElementById(arguments[0]);
        slider.value = arguments[1];
        slider.dispatchEvent(new Event("input", {bubbles: true}));
    """
    page.run(script, name, value)


def test_a_part_of_the_speech_is_said(page, portrait, speech) -> None:
    fill(page, portrait, speech)
    page.wait_shown("speech-trim")
    move(page, "trim-begin", 0.2)
    move(page, "trim-end", 0.35)
    assert page.text("speech-place").endswith("/ 0:01–0:02")
    assert not page.find("consent").is_selected()
    page.click("consent")
    generate(page)
    length = "return document.getElementById('video').duration"
    assert page.run(length) == pytest.approx(0.15 * 6.96, abs=0.1)
    page.run(
        "const one = document.getElementById('trim-begin'); one.value = 1; one.dispatchEvent(new Event('input'))"
    )
    assert float(page.find("trim-begin").get_attribute("value")) < float(page.find("trim-end").get_attribute("value"))
    page.put("speech-file", speech)
    page.wait(lambda: page.text("speech-place") == "0:00 / 0:07")


def test_an_example_of_the_gallery_fills_the_page(page) -> None:
    cards = page.driver.find_elements(By.CSS_SELECTOR, "#gallery button")
    assert [card.text for card in cards] == ["Good news", "Bad news", "A surprise", "A complaint"]
    cards[1].click()
    page.wait(lambda: page.text("portrait-note") == "One face found." and page.focused() == "consent")
    chosen = (
        "return [document.querySelector('[name=emotion]:checked').value, document.getElementById('intensity').value]"
    )
    assert page.run(chosen) == ["sad", "0.8"]
    assert (
        page.run("return document.getElementById('speech-text').value") or page.text("speech-name") == "speech.flac"
    )


def test_what_will_not_turn_out_well_is_said_before_and_after(page, portrait, word, detector, tmp_path) -> None:
    landmarks = read_sitter(portrait, detector).landmarks
    Image.fromarray(covered(portrait, landmarks, "glasses")).save(tmp_path / "glasses.png")
    fill(page, tmp_path / "glasses.png", word)
    page.wait(lambda: page.text("portrait-note") == "One face found.")
    assert "dark glasses: they do not blink" in page.text("portrait-warnings")
    generate(page)
    assert "dark glasses: they do not blink" in page.text("result-warnings")
    page.put("portrait-file", portrait)
    assert page.text("portrait-warnings") == ""


def test_each_emotion_has_a_picture_of_its_own_and_the_word_of_the_command_line(page) -> None:
    values = page.run("return [...document.querySelectorAll('[name=emotion]')].map((one) => one.value)")
    words = page.run("return [...document.querySelectorAll('#emotions span')].map((one) => one.textContent)")
    assert sorted(values) == sorted([*EMOTIONS, "auto"])
    assert [word.lower() for word in words if word != "As the voice sounds"] == values[:-1]
    places = page.run("""
        const looks = [...document.querySelectorAll("#emotions .look")];
        return looks.map((one) => getComputedStyle(one).backgroundPositionX);
    """)
    assert len(set(places)) == len(EMOTIONS)


@pytest.mark.parametrize("size", WIDTHS)
def test_generate_is_always_in_view_and_the_result_near_the_top(page, portrait, word, size) -> None:
    page.resize(*size)
    box = "const box = document.getElementById(arguments[0]).getBoundingClientRect(); return [box.top, box.bottom]"
    height = page.run("return document.documentElement.scrollHeight")
    for place in (0, height // 2, height):
        page.run("scrollTo(0, arguments[0])", place)
        top, bottom = page.run(box, "generate")
        assert 0 <= top < bottom <= size[1]
    page.run("scrollTo(0, 0)")
    if size[0] != 1440:
        return
    fill(page, portrait, word)
    generate(page)
    for width, tall in (*WIDTHS, PHONE, DESKTOP):
        page.resize(width, tall)
        page.run("scrollTo(0, 0)")
        assert page.run(box, "video")[0] < 200
        assert page.overflow() <= 0
