"""A text in the place of a recording: its sentences, the voice that says them, and what is refused."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.cli import main
from atldiff.errors import InputError
from atldiff.speech.text import LONGEST_SENTENCE, open_voice, sentences, speak, spoken, write_spoken
from atldiff.speech.voices import DEFAULT_VOICE, voices
from media_files import sine

pytest.importorskip("hibari")

torch.set_num_threads(1)

RATE = 8000
TEXT = 'Dr. Smith came at 3.5 o\'clock, i.e. late. "Really?" she said\n… Yes!\n\nA heading\n\nJ. K. Rowling wrote.'
SENTENCES = ["Dr. Smith came at 3.5 o'clock, i.e. late.", '"Really?"', "she said …", "Yes!", "A heading"]


def beep(text: str) -> tuple[np.ndarray, int]:
    """An engine: 10 ms a letter."""
    return sine(0.01 * len(text), RATE)[0], RATE


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_text_falls_into_sentences_however_it_comes(size) -> None:
    pieces = [TEXT[begin : begin + size] for begin in range(0, len(TEXT), size)]
    assert list(sentences(pieces)) == list(sentences(TEXT)) == [*SENTENCES, "J. K. Rowling wrote."]


def test_sentences_of_other_scripts_end_too() -> None:
    assert list(sentences("你好。再见！")) == ["你好。", "再见！"]


@pytest.mark.parametrize("text", ["word " * 500, "x" * 1500, "clause, " * 300])
def test_no_sentence_is_longer_than_can_be_said(text) -> None:
    parts = list(sentences(text))
    assert max(map(len, parts)) <= LONGEST_SENTENCE
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")


def test_a_sentence_is_said_before_the_next_one_is_there() -> None:
    asked = []

    def pieces() -> Iterator[str]:
        for number in range(5):
            asked.append(number)
            yield f"Sentence number {number}. "

    said = speak(pieces(), beep)
    next(said)
    assert asked == [0, 1]


def test_the_sound_is_all_that_was_said_and_can_be_read_again() -> None:
    speech = spoken(TEXT, beep)
    expected = np.concatenate([beep(sentence)[0] for sentence in [*SENTENCES, "J. K. Rowling wrote."]])
    assert speech.sample_rate == RATE
    for _ in range(2):
        assert np.abs(np.concatenate(list(speech.blocks(RATE))) - expected).max() < 1e-4
    path = speech.path
    assert path is not None and path.exists()
    del speech
    assert not path.exists()


def test_the_voice_says_the_same_again() -> None:
    assert voices() == [DEFAULT_VOICE] or DEFAULT_VOICE in voices()
    samples, rate = open_voice()("Hello there.")
    assert np.array_equal(samples, open_voice()("Hello there.")[0])
    assert rate == 24_000
    assert 0.5 < len(samples) / rate < 3


@pytest.mark.parametrize(
    ("text", "voice", "words"),
    [
        ("", beep, "nothing that the voice can say"),
        ("你好", DEFAULT_VOICE, "nothing that the voice can say"),
        (5, beep, "got int as text"),
        ("Hello.", "nobody", "no voice 'nobody'"),
        ("Hello.", 5, "got int as voice"),
        ("Hello.", lambda _: None, "gave NoneType"),
        ("Hello.", lambda _: (np.zeros((2, 5)), RATE), r"shape \(2, 5\)"),
        ("Hello.", lambda _: (np.full(800, np.nan), RATE), "NaN"),
        ("Hello.", lambda _: (np.zeros(800), 10), "sample rate of 10"),
        ("One. And two.", lambda text: (np.zeros(800), RATE + len(text)), "expected one rate"),
    ],
)
def test_what_cannot_be_said_is_told(text, voice, words) -> None:
    with pytest.raises(InputError, match=words):
        spoken(text, voice)


def test_no_more_is_said_than_may_be(tmp_path) -> None:
    said = 0

    def counting(text: str) -> tuple[np.ndarray, int]:
        nonlocal said
        said += 1
        return beep(text)

    with pytest.raises(InputError, match="longer than 1 s"):
        write_spoken("A sentence. " * 1000, tmp_path / "said.wav", counting, most_s=1)
    assert said < 20


def test_the_pipeline_says_a_text(tiny_pipeline, portrait) -> None:
    head = tiny_pipeline(portrait, text="Hello there, world.", voice=beep, crop_only=True)
    assert len(head.frames) == round(25 * 0.01 * len("Hello there, world."))
    with pytest.raises(InputError, match="got speech and text"):
        tiny_pipeline(portrait, portrait, text="Hello.")
    with pytest.raises(InputError, match="neither speech nor text"):
        tiny_pipeline(portrait)


def test_the_command_line_says_a_text(tiny_model, portrait, tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "engine.py").write_text(
        "import numpy as np\ndef hum(text):\n    return 0.1 * np.sin(np.arange(80 * len(text))), 8000\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("This comes from elsewhere. It is said."))
    command = ["generate", "--portrait", str(portrait), "--model", str(tiny_model), "--device", "cpu", "--crop-only"]
    assert main([*command, "--text", "-", "--voice", "engine:hum", "-o", "out.mp4"]) == 0
    assert ", 0.37 s, 9 frames" in capfd.readouterr().out
    for wrong, words in (
        (["--text", "Hello.", "--voice", "engine:nothing"], "no voice engine:nothing"),
        (["--text", "Hello.", "--voice", "nosuch:hum"], "no voice nosuch:hum"),
        (["--speech", str(portrait), "--voice", "heart"], "--voice says a --text"),
        (["--speech", str(portrait), "--text", "Hello."], "got --speech and --text"),
        ([], "no speech was given"),
    ):
        assert main([*command, *wrong, "-o", "other.mp4"]) == 2
        assert words in capfd.readouterr().err
    assert not Path("other.mp4").exists()
