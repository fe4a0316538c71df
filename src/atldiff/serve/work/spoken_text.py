"""A text in the place of a recording: spoken while the uploads are looked at, and a recording from then on."""

import json
from http import HTTPStatus
from pathlib import Path

from atldiff.serve.problems import Problem
from atldiff.serve.work.store import SPEECH, TEXT, VOICE
from atldiff.speech.voices import DEFAULT_VOICE

QUICK_CHARACTERS = 600
"""Of a text that is spoken in no time."""


def keep_text(fields: dict[str, str], folder: Path) -> None:
    """Take the text and the voice out of the fields of a form into ``folder``, for the process that speaks it.

    Raises:
        Problem: a voice without a text.
    """
    text, voice = fields.pop(TEXT, ""), fields.pop(VOICE, "")
    if text:
        (folder / TEXT).write_text(json.dumps([text, voice or DEFAULT_VOICE]))
    elif voice:
        detail = "a voice says a text, and there is none; expected both, or a recording"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, VOICE)


def kept_text(folder: Path) -> tuple[str, str] | None:
    """The text and the name of the voice, where there is a text to be spoken."""
    try:
        text, voice = json.loads((folder / TEXT).read_text())
    except FileNotFoundError:
        return None
    return text, voice


def check_voice(voice: str) -> None:
    """Raises InputError: there is no such voice."""
    from atldiff.speech.text import open_voice

    open_voice(voice)


def say(text: str, voice: str, folder: Path, most_s: float) -> None:
    """Speak the text into the file of the recording, and forget it.

    Raises:
        InputError: see :func:`atldiff.speech.text.write_spoken`.
    """
    from atldiff.speech.text import write_spoken

    write_spoken(text, folder / SPEECH, voice, most_s)
    (folder / TEXT).unlink()
