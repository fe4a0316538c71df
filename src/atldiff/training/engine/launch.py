"""Where a run computes: one process on a CPU or a GPU, or one process for each of several devices (DDP)."""

import functools
import logging
import math
import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.multiprocessing.spawn import ProcessException

from atldiff.errors import InputError

ACCELERATORS = ("auto", "cpu", "cuda")

Result = TypeVar("Result")

# Neither the started processes nor the chosen precision are worth a line; this must be said before they start.
logging.getLogger("lightning_fabric.utilities").setLevel(logging.WARNING)
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Launch:
    """How a run is started; none of it changes what is learned.

    Attributes:
        accelerator: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        devices: GPUs, or processes on the CPU, that share every batch.
        max_seconds: stop (and leave a checkpoint to go on from) after so long.
        quiet: say nothing.

    Raises:
        InputError: a value is out of its range.
    """

    accelerator: str = "auto"
    devices: int = 1
    max_seconds: float = math.inf
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise InputError(f"accelerator is {self.accelerator!r}; expected one of {', '.join(ACCELERATORS)}")
        if self.devices < 1:
            raise InputError(f"devices is {self.devices}; expected at least 1")


def run_on_devices(launch: Launch, precision: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """``function(fabric, *arguments)`` in one process for each device; what that of the first returns.

    With several devices the function and its arguments are pickled. When it fails in one process, the others
    are stopped.

    Raises:
        InputError: Lightning Fabric or the devices are missing, or the function raised one.
        RuntimeError: one of several processes failed otherwise.
    """
    Fabric, DDPStrategy = _import_fabric()
    accelerator = _accelerator(launch)
    if launch.devices == 1:
        fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
        fabric.launch()
        return function(fabric, *arguments)
    strategy = DDPStrategy(start_method="spawn")
    fabric = Fabric(accelerator=accelerator, devices=launch.devices, strategy=strategy, precision=precision)
    failures = torch.multiprocessing.get_context("spawn").SimpleQueue()
    try:
        return fabric.launch(functools.partial(_in_process, failures, function, arguments))
    except ProcessException as error:
        if failures.empty():
            raise RuntimeError(f"one of {launch.devices} processes was ended: {error}") from error
        of_caller, text, details = failures.get()
        logging.getLogger("atldiff").debug("%s", details)
        raise (InputError if of_caller else RuntimeError)(text) from error


def _in_process(failures: Any, function: Callable[..., Result], arguments: tuple[Any, ...], fabric: Any) -> Result:
    warnings.simplefilter("ignore")
    try:
        return function(fabric, *arguments)
    except Exception as error:
        of_caller = isinstance(error, InputError)
        text = str(error) if of_caller else f"{type(error).__name__}: {error}"
        failures.put((of_caller, text, traceback.format_exc()))
        os._exit(1)


def _import_fabric() -> tuple[Any, Any]:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise InputError(
            f'training needs Lightning Fabric ({error}); install it with: pip install ".[train]"'
        ) from error
    return Fabric, DDPStrategy


def _accelerator(launch: Launch) -> str:
    found = torch.cuda.device_count()
    accelerator = launch.accelerator if launch.accelerator != "auto" else "cuda" if found else "cpu"
    if accelerator == "cuda" and launch.devices > found:
        raise InputError(f"{launch.devices} GPUs were asked for; torch finds {found}")
    return accelerator
