"""The one table of options: the fields of :class:`GenerationOptions`, :class:`FramingOptions` and
:class:`~atldiff.dub.options.DubOptions`, each with its range, default and help.

From it come the checks, the command line (:func:`atldiff.cli.common.add_option`), the form fields of the service
with their OpenAPI description (:mod:`atldiff.serve.fields`) and the columns of a batch
(:mod:`atldiff.render.batch_table`).
Costs no heavy import.
"""

import dataclasses
import difflib
import operator
from dataclasses import dataclass
from typing import Any, TypedDict

from atldiff.errors import InputError

EMOTIONS: tuple[str, ...] = ("angry", "fear", "sad", "contempt", "happy", "surprised", "disgusted", "neutral")
"""The emotions of MEAD (Wang et al. 2020) in the order of their class numbers."""

AUTO_EMOTION = "auto"

BLINKS: tuple[str, ...] = ("auto", "off")

DEFAULT_MAX_SIZE = 1920
"""Longest side in pixels of a video, where nobody asks for another."""

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
class About:
    """What there is to know of an option, but for its default.

    Attributes:
        kind: float, int, str or bool.
        help: what it is; ``{range}`` stands for its range.
        description: the same where the range stands beside it, as in the service's; "" for what :attr:`help` says.
        least, most: the range of a number.
        unit: of the number, for messages.
        choices: all that a text may be; none where it is free.
        shown: its value in a command line's help, where that is not N, X or the choices.
        absent: what is done where it is left out, if that is no value.
        optional: whether it may be None.
    """

    kind: type
    help: str
    description: str = ""
    least: float = 0
    most: float = 0
    unit: str = ""
    choices: tuple[str, ...] = ()
    shown: str | None = None
    absent: str = ""
    optional: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers, whole or not."""
        return self.kind in (int, float)

    @property
    def range(self) -> str:
        """In words."""
        return f"{_short(self.least)} to {_short(self.most)}"

    def described(self) -> str:
        """A sentence, without the range."""
        text = self.help.replace(", {range}", "")
        return self.description or f"{text[0].upper()}{text[1:]}{f'; {self.absent} if left out' * bool(self.absent)}."

    def check(self, name: str, value: Any) -> Any:
        """The value as a plain number or as it is. Raises InputError, of the field ``name``."""
        if value is None and self.optional:
            return None
        if self.is_number:
            number = _number(name, value) if self.kind is float else _whole(name, value)
            if not self.least <= number <= self.most:
                raise InputError(f"{name} is {number}; expected {self.range}{self.unit and f' {self.unit}'}", name)
            return number
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(str(value), self.choices, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"unknown {name} {value!r}; {meant}expected one of {', '.join(self.choices)}", name)
        return value


def option(default: Any, kind: type, text: str, **more: Any) -> Any:
    """A field of a dataclass with what there is to know of it, see :class:`About`."""
    return dataclasses.field(default=default, metadata={"about": About(kind, text, **more)})


def known_options(table: type) -> dict[str, tuple[About, Any]]:
    """What there is to know of each field of a dataclass, and its default."""
    return {field.name: (field.metadata["about"], field.default) for field in dataclasses.fields(table)}


def check_options(options: Any) -> None:
    """Check every field of a frozen dataclass, and make its numbers plain. Raises InputError."""
    for name, (about, _) in known_options(type(options)).items():
        object.__setattr__(options, name, about.check(name, getattr(options, name)))


FACE = About(int, "which face, from 1 at the left", least=1, most=1000, absent="the largest", optional=True)


@dataclass(frozen=True)
class GenerationOptions:
    """How the face moves."""

    fps: float = option(25.0, float, "frames per second", least=1, most=120, unit="frames per second")
    steps: int = option(
        1,
        int,
        "sampler steps",
        description="Sampler steps; the model's own number if left out.",
        least=1,
        most=64,
        unit="sampler steps",
        absent="the model's own",
    )
    seed: int = option(0, int, "the same seed gives the same frames", most=2**40 - 1, absent="drawn from the inputs")
    emotion: str = option(
        "neutral",
        str,
        f"{', '.join(EMOTIONS)}, or {AUTO_EMOTION} to hear it from the speech",
        description=f"Expression on the face; {AUTO_EMOTION} hears it from the speech (not live).",
        choices=(*EMOTIONS, AUTO_EMOTION),
        shown="NAME",
    )
    intensity: float = option(0.5, float, "strength of the expression, {range}", most=1)
    head_motion: float = option(
        0.5,
        float,
        "strength of the head's own motion, {range}",
        description="Strength of the head's own motion; 0 is still.",
        most=1,
    )
    blink: str = option("auto", str, "whether the eyes blink", choices=BLINKS)
    mouth: float = option(
        1.0,
        float,
        "how far the mouth moves, {range}",
        description="How far the mouth moves; 1 as predicted.",
        most=1.5,
    )
    look_ahead_s: float | None = option(
        None,
        float,
        "seconds of the following sound that a frame may hear, {range}",
        least=0.08,
        most=1,
        unit="seconds",
        absent="all that helps",
        optional=True,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class FramingOptions:
    """What is taken of the portrait and the speech, and how the picture is cut and shown.

    Shapes and colours are looked into by :func:`atldiff.media.framing.check_framing`.
    """

    face: int | None = dataclasses.field(default=None, metadata={"about": FACE})
    crop_only: bool = option(
        False,
        bool,
        "write the square crop of the face",
        description="Give the square crop of the face, not the whole portrait.",
        absent="the portrait",
    )
    max_size: int | None = option(
        DEFAULT_MAX_SIZE,
        int,
        "longest side of the video in pixels, {range}",
        least=64,
        most=4096,
        unit="pixels",
        optional=True,
    )
    aspect: str | None = option(
        None,
        str,
        "cut the portrait to 9:16, 1:1, 16:9 … around the face",
        description="Cut the portrait to this shape around the face: 9:16, 1:1, 16:9 …",
        shown="W:H",
        absent="its own shape",
        optional=True,
    )
    background: str | None = option(
        None,
        str,
        "behind a transparent portrait: a colour, blur or keep",
        shown="COLOUR",
        absent="mid-grey",
        optional=True,
    )
    audio_track: int | None = option(
        None,
        int,
        "which sound track, from 1",
        description="Which sound track of the speech, from 1; the file's own default if left out.",
        least=1,
        most=1000,
        absent="the file's own default",
        optional=True,
    )
    badge: bool = option(
        False,
        bool,
        "show on every frame that the video is made by AI",
        description="Show on every frame that it is AI-generated.",
        absent="no",
    )

    def __post_init__(self) -> None:
        check_options(self)


def _short(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number}"


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {value!r:.80}; expected a number", name) from error


def _whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}; expected a whole number", name) from error
