"""Settings as texts: typed by the dataclasses, wrong ones refused by name."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from atldiff.errors import InputError
from atldiff.training.engine.settings import (
    TrainingSettings,
    change_settings,
    choose_preset,
    format_duration,
    parse_duration,
)


@dataclass(frozen=True)
class Config:
    channels: tuple[int, int, int] = (1, 2, 3)
    dilations: tuple[int, ...] = (1,)
    causal: bool = False


def test_values_take_the_types_of_the_fields() -> None:
    texts = ["steps=200", "learning_rate=1e-3", "precision=bf16-mixed", "model.channels=16,16,8"]
    settings, config = change_settings(
        TrainingSettings(), Config(), [*texts, "model.dilations=1,2", "model.causal=true"]
    )
    assert settings == TrainingSettings(steps=200, learning_rate=1e-3, precision="bf16-mixed")
    assert config == Config((16, 16, 8), (1, 2), True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps", "'steps' was given; expected key=value"),
        ("stepps=3", "unknown setting 'stepps'; expected one of steps, clips, .*model.channels"),
        ("channels=1,2,3", "unknown setting 'channels'"),
        ("steps=many", "steps is 'many'; expected a whole number"),
        ("steps=0", "steps is 0; expected at least 1"),
        ("learning_rate=nan", "learning_rate is nan; expected more than 0"),
        ("precision=8", "precision is '8'; expected one of 32-true, bf16-mixed"),
        ("ema_decay=1", "ema_decay is 1.0; expected at least 0 and under 1"),
        ("model.channels=1,2", "model.channels is '1,2'; expected 3 values"),
        ("model.causal=maybe", "model.causal is 'maybe'; expected true or false"),
    ],
)
def test_wrong_settings_are_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        change_settings(TrainingSettings(), Config(), [text])


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "25m", "2h", "1.5h")] == [90, 1500, 7200, 5400]
    for text in ("25", "m", "-3m", "0s", "2 days", ""):
        with pytest.raises(InputError, match="expected one like 90s, 25m or 2h"):
            parse_duration(text)
    assert [format_duration(seconds) for seconds in (0.4, 89, 1500, 11_100)] == [
        "0 s",
        "89 s",
        "25 min",
        "3 h 05 min",
    ]


def test_the_learning_rate_rises_and_falls() -> None:
    settings = TrainingSettings(steps=100, warmup=10, learning_rate=1.0)
    rates = [settings.cosine_rate(step, floor=0.02) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == max(rates[8:12])
    assert rates[99] == pytest.approx(0.02, abs=1e-3)


def test_a_preset_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="preset paper of the image network is not available yet"):
        choose_preset({"compact": lambda: (TrainingSettings(), Config())}, "paper", "image network")


def test_settings_are_read_without_torch() -> None:
    script = "import sys, atldiff.training.engine.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
