"""Checkpoints that a killed run goes on from exactly: atomic files, everything that the next step depends on."""

import copy
import dataclasses
import io
import math
import pickle
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from atldiff.errors import InputError, OutputError
from atldiff.serialization import write_atomically

FOLDER_NAME = "checkpoints"
BEST_NAME = "best.pt"

_MAY_DIFFER = ("steps", "accumulate", "report_every", "keep")

Module = TypeVar("Module", bound=nn.Module)


class ExponentialAverage(Generic[Module]):
    """Exponential moving average of a module's parameters, with a warm-up so that early steps do not linger."""

    def __init__(self, module: Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards ``module`` after optimiser step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for averaged, current in zip(self.module.parameters(), module.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)


class Checkpoints:
    """The last few states of a run, ``checkpoints/step-000500.pt``, and its best weights, ``best.pt``."""

    def __init__(self, run: Path, keep: int) -> None:
        self._run, self._keep = run, keep

    def paths(self) -> list[Path]:
        """The files of the states, oldest first."""
        return sorted((self._run / FOLDER_NAME).glob("step-*.pt"))

    def latest(self) -> dict[str, Any] | None:
        """The newest state, on the CPU; None in a new run."""
        paths = self.paths()
        return _load(paths[-1]) if paths else None

    @property
    def best_path(self) -> Path:
        return self._run / BEST_NAME

    def best(self) -> dict[str, Any]:
        """What :meth:`save_best` wrote."""
        return _load(self.best_path)

    def save(self, state: dict[str, Any]) -> None:
        """Write a state, which has its ``step``, and remove those that are not kept.

        Raises:
            OutputError: it cannot be written; the older ones are left as they are.
        """
        self._write(self._run / FOLDER_NAME / f"step-{state['step']:06d}.pt", state)
        for path in self.paths()[: -self._keep]:
            path.unlink()

    def save_best(self, content: dict[str, Any]) -> None:
        """Write the best weights in the place of older ones; fails as :meth:`save` does."""
        self._write(self.best_path, content)

    def describe_last(self) -> str:
        """What is there to go on from, for messages."""
        paths = self.paths()
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            write_atomically(path, buffer.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; {self.describe_last()}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to go on without it") from error


def check_same_settings(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse to go on with settings that make other steps than those the run was begun with.

    Args:
        stored, wanted: settings by name; ``steps``, ``accumulate``, ``report_every`` and ``keep`` may differ.

    Raises:
        InputError: names the settings that differ.
    """
    differing = [name for name in wanted if name not in _MAY_DIFFER and stored.get(name) != wanted[name]]
    if differing:
        begun, given = ({name: values.get(name) for name in differing} for values in (stored, wanted))
        raise InputError(f"{run} was begun with {begun}, not {given}; use those settings or another folder")


def all_settings(settings: Any, config: Any) -> dict[str, Any]:
    """Training settings and model configuration (dataclasses) by name, the model's as ``model.name``."""
    model = {f"model.{name}": value for name, value in dataclasses.asdict(config).items()}
    return dataclasses.asdict(settings) | model


def comparable(score: float) -> float:
    """A validation score that can be compared: what is not a number is worse than any other."""
    return -math.inf if math.isnan(score) else score
