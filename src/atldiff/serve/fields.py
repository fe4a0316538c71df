"""The options of a request: their names, their reading, their description."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from atldiff.dub.options import LONGER, SHORTER, DubOptions
from atldiff.errors import InputError
from atldiff.media.framing import DEFAULT_MAX_SIZE, NAMES, SIZES, check_framing
from atldiff.options import AUTO_EMOTION, BLINKS, EMOTIONS, GenerationOptions
from atldiff.serve.problems import Problem, problem_of

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("expected a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("expected a whole number")
    return value


def _truth(value: Any) -> bool:
    truth = _TRUTHS.get(str(value).lower())
    if truth is None:
        raise InputError("expected true or false")
    return truth


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("expected a text")
    return value


@dataclass(frozen=True)
class Option:
    """One option: how it is read, and its JSON schema."""

    read: Callable[[Any], Any]
    schema: dict[str, Any]


def _range(kind: str, least: float, most: float, default: float | None, description: str) -> dict[str, Any]:
    schema = {"type": kind, "minimum": least, "maximum": most, "description": description}
    return schema if default is None else schema | {"default": default}


def _choice(known: tuple[str, ...], description: str) -> dict[str, Any]:
    return {"type": "string", "enum": [*known], "default": known[0], "description": description}


MODES = ("portrait", "dub")
"""What is made: a talking portrait, or a video that says something else."""

_DEFAULT = GenerationOptions

OPTIONS: dict[str, Option] = {
    "fps": Option(_number, _range("number", 1, 120, _DEFAULT.fps, "Frames per second.")),
    "steps": Option(_whole, _range("integer", 1, 64, None, "Sampler steps; the model's own number if left out.")),
    "seed": Option(
        _whole,
        _range(
            "integer", 0, 2**40 - 1, None, "The same seed gives the same frames; drawn from the inputs if left out."
        ),
    ),
    "emotion": Option(
        _text,
        {
            "type": "string",
            "enum": [*EMOTIONS, AUTO_EMOTION],
            "default": _DEFAULT.emotion,
            "description": f"Expression on the face; {AUTO_EMOTION} hears it from the speech (not live).",
        },
    ),
    "intensity": Option(_number, _range("number", 0, 1, _DEFAULT.intensity, "Strength of the expression.")),
    "head_motion": Option(
        _number, _range("number", 0, 1, _DEFAULT.head_motion, "Strength of the head's own motion; 0 is still.")
    ),
    "blink": Option(
        _text,
        {"type": "string", "enum": [*BLINKS], "default": _DEFAULT.blink, "description": "Whether the eyes blink."},
    ),
    "mouth": Option(_number, _range("number", 0, 1.5, _DEFAULT.mouth, "How far the mouth moves; 1 as predicted.")),
    "face": Option(
        _whole,
        {"type": "integer", "minimum": 1, "description": "Which face, from 1 at the left; the largest if left out."},
    ),
    "crop_only": Option(
        _truth,
        {
            "type": "boolean",
            "default": False,
            "description": "Give the square crop of the face, not the whole portrait.",
        },
    ),
    "max_size": Option(_whole, _range("integer", *SIZES, DEFAULT_MAX_SIZE, "Longest side of the video in pixels.")),
    "aspect": Option(
        _text,
        {"type": "string", "description": "Cut the portrait to this shape around the face: 9:16, 1:1, 16:9 …"},
    ),
    "background": Option(
        _text,
        {
            "type": "string",
            "description": "Behind a transparent portrait: a colour, blur or keep; mid-grey if left out.",
        },
    ),
    "audio_track": Option(
        _whole,
        {"type": "integer", "minimum": 1, "description": "Which sound track of the speech, from 1; its own default."},
    ),
    "badge": Option(
        _truth, {"type": "boolean", "default": False, "description": "Show on every frame that it is AI-generated."}
    ),
}

LIVE_OPTIONS = {name: option for name, option in OPTIONS.items() if name not in ("badge", "audio_track")}
"""Of a live session."""

_DUBBING: dict[str, Option] = {
    "longer": Option(_text, _choice(LONGER, "What is shown when the speech is longer than the video (mode dub).")),
    "shorter": Option(_text, _choice(SHORTER, "What, when it is shorter (mode dub).")),
    "old_sound": Option(
        _number, _range("number", 0, 1, DubOptions.background, "How loud the video's own sound stays (mode dub).")
    ),
}
_NAMES = {"old_sound": "background"}
"""What options are called in Python, where that is something else."""

OPTIONS |= {
    "mode": Option(_text, _choice(MODES, "dub keeps a video's motion, and changes what its mouth says."))
} | _DUBBING
"""Of a video."""

_OF_DUBS = {"mode", "mouth", "face", "audio_track", "badge", *_DUBBING}


def read_options(values: Mapping[str, Any], known: Mapping[str, Option] = OPTIONS) -> dict[str, Any]:
    """Options as texts of a form or values of JSON → keyword arguments of the pipeline; what is empty is left out.

    Raises:
        Problem: an option is unknown, not of its kind or out of its range.
    """
    options = {}
    for name, value in values.items():
        if value in ("", None):
            continue
        option = known.get(name)
        if option is None:
            expected = ", ".join(known)
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"unknown option; expected one of {expected}", name[:80])
        try:
            options[name] = _checked(name, option.read(value))
        except InputError as error:
            text = str(error) if error.field == name else f"{name} is {str(value)[:80]!r}; {error}"
            raise problem_of(InputError(text), name) from error
    _check_mode(options)
    return options


def _check_mode(options: Mapping[str, Any]) -> None:
    """Raise Problem for an option that has nothing to do with what is to be made."""
    is_dub = options.get("mode") == MODES[1]
    for name in options:
        if (is_dub and name not in _OF_DUBS) or (not is_dub and name in _DUBBING):
            mode = MODES[is_dub]
            detail = f"{name} has nothing to do with mode {mode}; expected none"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, name)


def _checked(name: str, value: Any) -> Any:
    if name in NAMES:
        check_framing(**{name: value})
    elif name == "mode":
        if value not in MODES:
            raise InputError(f"expected {' or '.join(MODES)}")
    elif name in _DUBBING:
        DubOptions(**{_NAMES.get(name, name): value})
    elif name not in ("crop_only", "badge"):
        GenerationOptions(**{name: value})
    return value
