"""Checkpoints that a killed run goes on from exactly: atomic files, everything that the next step depends on."""

import copy
import dataclasses
import io
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

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


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``run/last.pt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(run / LAST_NAME, buffer.getvalue())


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
    """The state that :func:`save_checkpoint` wrote, or None in a new run."""
    path = run / LAST_NAME
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
