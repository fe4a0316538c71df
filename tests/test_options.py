"""Options and configurations: what fits is taken in any numeric type, what does not is named."""

import numpy as np
import pytest

from atldiff.errors import InputError, ModelError
from atldiff.image.unet import UNetConfig
from atldiff.landmarks.generator import LandmarkGeneratorConfig
from atldiff.options import GenerationOptions


def test_numbers_of_any_kind_are_taken() -> None:
    options = GenerationOptions(fps=np.float32(25), steps=np.int64(2), seed=np.int32(3))
    assert (options.fps, options.steps, options.seed) == (25.0, 2, 3)
    assert type(options.seed) is int


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", "25"),
        ("fps", None),
        ("fps", float("nan")),
        ("fps", 0),
        ("steps", 2.5),
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
    "values",
    [
        {"channels": (8, 16)},
        {"channels": (8, 16, -16)},
        {"channels": (8, 16, 1e7)},
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
