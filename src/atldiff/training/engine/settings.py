"""Settings of a training run: what every part has, how ``key=value`` changes them, durations. Imports no torch."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from atldiff.errors import InputError

PRECISIONS = ("32-true", "bf16-mixed")

MODEL_PREFIX = "model."
"""What the names of a model's own settings begin with."""

Settings = TypeVar("Settings")
Config = TypeVar("Config")

Preset = Callable[[], tuple[Settings, Config]]
"""A preset of one part: its training settings and its model's configuration."""


@dataclass(frozen=True)
class TrainingSettings:
    """What every part is trained with.

    Attributes:
        steps: optimiser steps of the whole run; the learning rate follows a cosine over them.
        clips: clips of a batch, over all devices together.
        accumulate: so many parts of a device's share of the batch are worked on one after the other, to save memory.
        learning_rate, warmup: its highest value, and the steps that it rises for.
        weight_decay: of AdamW.
        clip_norm: norm that the gradient is clipped to.
        ema_decay: of the moving average of the weights, which is what is judged and kept.
        precision: ``32-true``, or ``bf16-mixed`` for convolutions and products in bfloat16.
        seed: of everything random.
        report_every: steps between two reports; each judges the weights, logs, and writes a checkpoint.
        keep: checkpoints that are kept, the last ones; the best weights are kept beside them.
        begin_from: folder of a trained part, with ``config.json`` and ``model.safetensors``, whose weights the run
            begins with; ``compact`` for those in the package, empty for random ones.

    Raises:
        InputError: a value is out of its range.
    """

    steps: int = 1000
    clips: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "32-true"
    seed: int = 0
    report_every: int = 250
    keep: int = 2
    begin_from: str = ""

    def __post_init__(self) -> None:
        for name in ("steps", "clips", "accumulate", "warmup", "report_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name in ("weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 0")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}; expected at least 0 and under 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}")

    def clips_per_share(self, shares: int) -> int:
        """Clips of each of ``shares`` equal parts of a batch.

        Raises:
            InputError: they cannot be shared out evenly.
        """
        if self.clips % shares:
            raise InputError(f"clips is {self.clips}; expected a multiple of {shares}, devices times accumulate")
        return self.clips // shares

    def cosine_rate(self, step: int, floor: float = 0.0) -> float:
        """Learning rate of a step: a ramp over ``warmup`` times a cosine down to the share ``floor``."""
        ramp = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * ramp * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def choose_preset(presets: Mapping[str, Preset[Settings, Config]], name: str, part: str) -> tuple[Settings, Config]:
    """The preset ``name`` of a part, which is called ``part`` in messages.

    Raises:
        InputError: the part has no such preset.
    """
    if name not in presets:
        raise InputError(f"preset {name} of the {part} is not available yet; available: {', '.join(presets)}")
    return presets[name]()


def change_settings(settings: Settings, config: Config, assignments: Sequence[str]) -> tuple[Settings, Config]:
    """Training settings and model configuration (dataclasses) with the values of ``key=value`` texts.

    Raises:
        InputError: a text is not of that form, there is no such key, or the value is not of its type.
    """
    known = _field_types(settings) | {MODEL_PREFIX + name: kind for name, kind in _field_types(config).items()}
    changed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r} was given; expected key=value")
        if key not in known:
            raise InputError(f"unknown setting {key!r}; expected one of {', '.join(known)}")
        changed[key] = _parse(key, text, known[key])
    own = {key: value for key, value in changed.items() if not key.startswith(MODEL_PREFIX)}
    model = {key.removeprefix(MODEL_PREFIX): value for key, value in changed.items() if key not in own}
    return (
        dataclasses.replace(settings, **own),  # pyright: ignore[reportArgumentType, reportCallIssue]
        dataclasses.replace(config, **model),  # pyright: ignore[reportArgumentType, reportCallIssue]
    )


def _field_types(instance: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(type(instance))
    return {field.name: hints[field.name] for field in dataclasses.fields(instance)}


def _parse(key: str, text: str, kind: Any) -> Any:
    """A text as a value of type ``kind``: int, float, str, bool, or a tuple of one of them, separated by commas."""
    if typing.get_origin(kind) is tuple:
        kinds, parts = typing.get_args(kind), text.split(",")
        if kinds[-1] is not Ellipsis and len(parts) != len(kinds):
            raise InputError(f"{key} is {text!r}; expected {len(kinds)} values, separated by commas")
        return tuple(_parse(key, part, kinds[0]) for part in parts)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    words = {"true": True, "false": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        names = {int: "a whole number", float: "a number", bool: "true or false"}
        raise InputError(f"{key} is {text!r}; expected {names[kind]}") from error


def parse_duration(text: str) -> float:
    """``90s``, ``25m`` or ``2h`` → seconds.

    Raises:
        InputError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise InputError(f"{text!r} was given as a time; expected one like 90s, 25m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def format_duration(seconds: float) -> str:
    """Seconds → ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
