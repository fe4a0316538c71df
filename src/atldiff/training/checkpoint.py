"""Checkpoints that a killed run goes on from exactly: atomic files, everything that the next step depends on."""

import copy
import dataclasses
import io
import math
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from atldiff.errors import InputError
from atldiff.serialization import write_atomically

LAST_NAME = "last.pt"

_MAY_DIFFER = ("steps", "max_minutes", "report_every")


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


class TrainingState(Generic[Module]):
    """What one optimiser step changes, and the file that keeps it: model, its average, optimiser, counters.

    Args:
        run: folder of the run; a checkpoint in it is taken up.
        settings: the run's settings, a dataclass; see :func:`check_same_settings`.
        optimiser: of the parameters of ``model``.

    Attributes:
        step: optimiser steps done.
        best: best validation score so far.
        kept: the checkpoint that was taken up; empty in a new run.
    """

    def __init__(
        self, run: Path, settings: Any, model: Module, average: ExponentialAverage[Module], optimiser: Optimizer
    ) -> None:
        self._run, self._settings, self._model, self._optimiser = run, settings, model, optimiser
        self.average = average
        self.step, self.best = 0, -math.inf
        self.kept: dict[str, Any] = load_checkpoint(run) or {}
        if self.kept:
            check_same_settings(self.kept["training"], settings, run)
            model.load_state_dict(self.kept["model"])
            average.module.load_state_dict(self.kept["average"])
            optimiser.load_state_dict(self.kept["optimiser"])
            self.step, self.best = self.kept["step"], self.kept["best"]

    def learn(self, loss: torch.Tensor, learning_rate: float) -> float:
        """One optimiser step down the gradient of ``loss``, clipped to norm 1; returns the loss.

        Raises:
            FloatingPointError: the loss is not finite; the parameters are left as they were.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} at step {self.step}; {self._run} keeps the last good checkpoint"
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        self.average.update(self._model, self.step)
        self.step += 1
        return value

    def save(self, **more: Any) -> None:
        """Write everything, and ``more``, to ``run/last.pt``."""
        state = {
            "model": self._model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
            "training": dataclasses.asdict(self._settings),
        }
        buffer = io.BytesIO()
        torch.save(state | more, buffer)
        write_atomically(self._run / LAST_NAME, buffer.getvalue())


def check_same_settings(stored: dict[str, Any], training: Any, run: Path) -> None:
    """Refuse to go on with settings that make other batches than those the run was begun with.

    Raises:
        InputError: names the settings that differ; ``steps``, ``max_minutes`` and ``report_every`` may.
    """
    wanted = {name: value for name, value in dataclasses.asdict(training).items() if name not in _MAY_DIFFER}
    other = {name: stored[name] for name, value in wanted.items() if name in stored and stored[name] != value}
    if other:
        given = {name: wanted[name] for name in other}
        raise InputError(f"{run} was begun with {other}, not {given}; use those settings or another folder")


def load_checkpoint(run: Path) -> dict[str, Any] | None:
    """The state that :class:`TrainingState` wrote, or None in a new run."""
    path = run / LAST_NAME
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
