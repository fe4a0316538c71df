"""The options of a request: their names, their reading, their description."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from atldiff.dub.options import DubOptions
from atldiff.errors import InputError
from atldiff.media.framing import check_framing
from atldiff.options import FramingOptions, GenerationOptions, known_options
from atldiff.serve.problems import Problem, problem_of

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,100}", re.ASCII)
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("expected a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InputError("expected a number") from error


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
    """One option: how it is read and checked, and its JSON schema."""

    read: Callable[[Any], Any]
    check: Callable[..., object]
    schema: dict[str, Any]


MODES = ("portrait", "dub")
"""What is made: a talking portrait, or a video that says something else."""

_READ: dict[type, tuple[Callable[[Any], Any], str]] = {
    float: (_number, "number"),
    int: (_whole, "integer"),
    bool: (_truth, "boolean"),
    str: (_text, "string"),
}
"""How values of a kind are read, and what JSON calls the kind."""


def _option(table: type, name: str, check: Callable[..., object]) -> Option:
    """An option of one of the tables of :mod:`atldiff.options`."""
    about, default = known_options(table)[name]
    read, kind = _READ[about.kind]
    schema: dict[str, Any] = {"type": kind, "description": about.described()}
    schema |= {"minimum": about.least, "maximum": about.most} if about.is_number else {}
    schema |= {"enum": [*about.choices]} if about.choices else {}
    schema |= {"default": default} if about.kind is bool or not about.absent else {}
    return Option(read, check, schema)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"expected {' or '.join(MODES)}")


_MODE: dict[str, Any] = {
    "type": "string",
    "enum": [*MODES],
    "default": MODES[0],
    "description": "dub keeps a video's motion, and changes what its mouth says.",
}
_TALKING = {
    name: _option(GenerationOptions, name, GenerationOptions)
    for name in known_options(GenerationOptions)
    if name != "look_ahead_s"
} | {name: _option(FramingOptions, name, check_framing) for name in known_options(FramingOptions)}
_DUBBING = {name: _option(DubOptions, name, DubOptions) for name in ("longer", "shorter", "old_sound")}

OPTIONS = _TALKING | {"mode": Option(_text, _check_mode, _MODE)} | _DUBBING
"""Of a video."""

LIVE_OPTIONS = {name: option for name, option in _TALKING.items() if name not in ("badge", "audio_track")}
"""Of a live session."""

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
            options[name] = option.read(value)
            option.check(**{name: options[name]})
        except InputError as error:
            text = str(error) if error.field == name else f"{name} is {str(value)[:80]!r}; {error}"
            raise problem_of(InputError(text), name) from error
    _check_fit(options)
    return options


def _check_fit(options: Mapping[str, Any]) -> None:
    """Raise Problem for an option that has nothing to do with what is to be made."""
    is_dub = options.get("mode") == MODES[1]
    for name in options:
        if (is_dub and name not in _OF_DUBS) or (not is_dub and name in _DUBBING):
            mode = MODES[is_dub]
            detail = f"{name} has nothing to do with mode {mode}; expected none"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, name)
