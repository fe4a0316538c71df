"""Options and configurations: what fits is taken in any numeric type, what does not is named."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from atldiff.dub.options import DubArguments, DubOptions
from atldiff.errors import InputError, ModelError
from atldiff.image.unet import UNetConfig
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.options import FramingOptions, GenerationOptions, OptionArguments, known_options
from atldiff.pipeline import ATLDiffPipeline


def test_numbers_of_any_kind_are_taken() -> None:
    options = GenerationOptions(fps=np.float32(25), steps=np.int64(2), seed=np.int32(3))
    assert (options.fps, options.steps, options.seed) == (25.0, 2, 3)
    assert type(options.seed) is int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", "25"),
        ("fps", True),
        ("fps", None),
        ("fps", float("nan")),
        ("fps", 0),
        ("fps", 10**400),
        ("steps", 2.5),
        ("steps", True),
        ("steps", 0),
        ("steps", 65),
        ("seed", "1"),
        ("seed", 1.5),
        ("seed", -1),
        ("emotion", "bored"),
        ("intensity", 1.5),
        ("intensity", float("nan")),
        ("head_motion", 1.1),
        ("head_motion", -0.1),
        ("blink", "on"),
        ("blink", None),
        ("mouth", 1.6),
        ("mouth", "wide"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        GenerationOptions(**{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("table", "name", "value", "words"),
    [
        (FramingOptions, "face", 0, "1 to 1000"),
        (FramingOptions, "face", True, "a whole number"),
        (FramingOptions, "audio_track", 1001, "1 to 1000"),
        (FramingOptions, "max_size", 63, "64 to 4096 pixels"),
        (FramingOptions, "max_size", "big", "a whole number"),
        (DubOptions, "old_sound", 1.1, "0 to 1"),
        (DubOptions, "longer", "hol", "did you mean hold"),
        (DubOptions, "face", -1, "1 to 1000"),
    ],
)
def test_what_does_not_fit_another_table_is_named_with_what_does(
    table: type, name: str, value: object, words: str
) -> None:
    with pytest.raises(InputError, match=rf"{name}.*{value}.*{words}") as refused:
        table(**{name: value})
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("way", "arguments", "tables", "left"),
    [
        (ATLDiffPipeline.stream, OptionArguments, (GenerationOptions, FramingOptions), {"badge"}),
        (ATLDiffPipeline.dub, DubArguments, (DubOptions,), set()),
    ],
)
def test_python_takes_what_the_tables_hold(
    way: Callable, arguments: type, tables: tuple[type, ...], left: set[str]
) -> None:
    taken = inspect.signature(way).parameters
    for name, (about, default) in [pair for table in tables for pair in known_options(table).items()]:
        if name not in left:
            assert name in get_type_hints(arguments)
            unstated = about.kind is not bool and (about.absent or about.optional)
            assert taken[name].default == (None if unstated else default), name


@pytest.mark.parametrize(
    "values",
    [
        {"channels": (8, 16, 16)},
        {"channels": (8, -16)},
        {"channels": (8, 1e7)},
        {"attention_heads": 5},
        {"noise_scale": float("nan")},
    ],
)
def test_impossible_networks_are_refused(values: dict) -> None:
    with pytest.raises(ModelError):
        UNetConfig(**values)


@pytest.mark.parametrize("values", [{"channels": -1}, {"dilations": (0,)}, {"dilations": ()}, {"dropout": 5}])
def test_impossible_generators_are_refused(values: dict) -> None:
    with pytest.raises(ModelError):
        LandmarkGeneratorConfig(**values)


@pytest.mark.parametrize("face", ["2", 1.5, True, 0])
def test_a_face_that_is_no_number_is_refused_before_any_is_looked_for(
    tiny_pipeline: ATLDiffPipeline, portrait: Path, speech: Path, face: object
) -> None:
    ways: list[Callable[[], object]] = [
        lambda: tiny_pipeline.stream(portrait, speech, face=face),  # pyright: ignore[reportArgumentType]
        lambda: tiny_pipeline.live(portrait, face=face),  # pyright: ignore[reportArgumentType]
        lambda: tiny_pipeline.prepare(portrait, face=face),  # pyright: ignore[reportArgumentType]
    ]
    for way in ways:
        with pytest.raises(InputError, match=r"^face is"):
            way()


@pytest.mark.parametrize(
    ("landmarks", "more", "words"),
    [
        (np.zeros((0, 68, 2)), {}, r"\(0, 68, 2\); expected \(F, 68, 2\)"),
        (np.zeros((3, 5, 2)), {}, r"\(3, 5, 2\)"),
        (np.zeros((3, 68, 2)), {"steps": -1}, "steps is -1"),
        (np.zeros((3, 68, 2)), {"emotion": "bored"}, "bored"),
        (np.zeros((3, 68, 2)), {"emotion": "auto"}, "auto"),
    ],
)
def test_what_cannot_be_animated_is_named(
    tiny_pipeline: ATLDiffPipeline, landmarks: np.ndarray, more: dict, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        tiny_pipeline.animate(np.zeros((128, 128, 3), np.uint8), np.zeros((68, 2)), landmarks, **more)
