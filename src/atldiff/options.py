"""Options of a generation, checked in one place before any work is done. Costs no heavy import."""

import difflib
import math
import operator
from dataclasses import dataclass
from typing import Any, TypedDict

from atldiff.errors import InputError

EMOTIONS: tuple[str, ...] = ("angry", "fear", "sad", "contempt", "happy", "surprised", "disgusted", "neutral")
"""The emotions of MEAD (Wang et al. 2020) in the order of their class numbers."""

AUTO_EMOTION = "auto"

BLINKS: tuple[str, ...] = ("auto", "off")

SAMPLE_FORMATS = {"s16le": "<i2", "f32le": "<f4"}
"""What live sound comes in, by FFmpeg's name: NumPy's name of it."""


class MotionArguments(TypedDict, total=False):
    """The keyword arguments that say how the face moves, where they are handed on."""

    fps: float
    steps: int | None
    seed: int | None
    emotion: str
    intensity: float
    head_motion: float
    blink: str
    mouth: float


class GenerationArguments(MotionArguments, total=False):
    """Those, and how much of the sound a frame may hear."""

    look_ahead_s: float | None


class OptionArguments(GenerationArguments, total=False):
    """The keyword arguments of :meth:`~atldiff.pipeline.ATLDiffPipeline.stream`, where they are handed on."""

    face: int | None
    crop_only: bool
    max_size: int | None
    aspect: str | None
    background: str | None
    sample_rate: float | None
    audio_track: int | None


@dataclass(frozen=True)
class GenerationOptions:
    """How a video is made.

    Attributes:
        fps: frames per second, 1 to 120.
        steps: sampler steps, 1 to 64.
        seed: at least 0.
        emotion: one of :data:`EMOTIONS`, or ``auto``.
        intensity: strength of the expression, 0 to 1.
        head_motion: strength of the head's own motion, 0 (still) to 1.
        blink: ``auto``, or ``off`` for eyes that stay as they are.
        mouth: how far the mouth moves with the speech, 0 (shut) to 1.5; 1 as predicted.
        look_ahead_s: seconds of the following sound that a frame may hear, 0.08 to 1; None for all that helps.
    """

    fps: float = 25.0
    steps: int = 1
    seed: int = 0
    emotion: str = "neutral"
    intensity: float = 0.5
    head_motion: float = 0.5
    blink: str = "auto"
    mouth: float = 1.0
    look_ahead_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("fps", "intensity", "head_motion", "mouth"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("steps", "seed"):
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        if not math.isfinite(self.fps) or not 1 <= self.fps <= 120:
            raise InputError(f"fps is {self.fps}; expected 1 to 120 frames per second", "fps")
        if not 1 <= self.steps <= 64:
            raise InputError(f"steps is {self.steps}; expected 1 to 64 sampler steps", "steps")
        if not 0 <= self.seed < 2**40:
            raise InputError(f"seed is {self.seed}; expected 0 to 2^40 - 1", "seed")
        if self.emotion not in (*EMOTIONS, AUTO_EMOTION):
            names = ", ".join((*EMOTIONS, AUTO_EMOTION))
            near = difflib.get_close_matches(str(self.emotion), (*EMOTIONS, AUTO_EMOTION), 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"unknown emotion {self.emotion!r}; {meant}expected one of {names}", "emotion")
        if self.blink not in BLINKS:
            raise InputError(f"blink is {self.blink!r}; expected {' or '.join(BLINKS)}", "blink")
        for name, most in (("intensity", 1.0), ("head_motion", 1.0), ("mouth", 1.5)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; expected 0 to {most:g}", name)
        if self.look_ahead_s is not None:
            object.__setattr__(self, "look_ahead_s", _number("look_ahead_s", self.look_ahead_s))
            if not 0.08 <= self.look_ahead_s <= 1:
                raise InputError(
                    f"look_ahead_s is {self.look_ahead_s}; expected 0.08 to 1 seconds, or None", "look_ahead_s"
                )


def _number(name: str, value: Any) -> float:
    if isinstance(value, str):
        raise InputError(f"{name} is {value!r}; expected a number", name)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; expected a number", name) from error


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}; expected a whole number", name) from error
