"""Batches that are drawn in processes beside the one that learns."""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from atldiff.errors import InputError
from atldiff.processes.workers import processors
from atldiff.training.engine.task import Batch, Task

_MOST_WORKERS = 8
_LONGEST_WAIT_S = 900


def start_draws(task: Task, numbers: range, rank: int, world: int, on_gpu: bool) -> Iterator[Batch]:
    """Draw the batches of one of several processes that learn.

    Args:
        numbers: of the draws, ``accumulate`` for each step.
        rank, world: the process that they are for, and how many there are.

    Raises:
        InputError: the processes that draw cannot be started, or the data is broken.
    """
    loader = DataLoader(
        _SharedDraws(task, rank, world),
        batch_size=None,
        sampler=numbers,
        num_workers=max(1, min(_MOST_WORKERS, processors() // world)) if on_gpu else 1,
        prefetch_factor=4,
        collate_fn=_as_it_is,
        worker_init_fn=_end_with_parent,
        pin_memory=on_gpu,
        timeout=_LONGEST_WAIT_S,
    )
    try:
        return _raising(iter(loader))
    except OSError as error:
        raise InputError(
            f"the processes that read the clips cannot be started ({error}); is /dev/shm there and writable?"
        ) from error


@dataclass(frozen=True)
class _Sent:
    """A draw on its way from a worker process, as arrays, which go through a pipe.

    Tensors would go through shared memory, of which containers have little; a worker that gets none says nothing, and
    the run would wait for ever.
    """

    arrays: dict[str, np.ndarray]

    def batch(self) -> Batch:
        return {name: torch.from_numpy(array) for name, array in self.arrays.items()}


class _SharedDraws(Dataset[Any]):
    """One process's parts of the batches, one after the other; what is wrong with the data is handed on as it is."""

    def __init__(self, task: Task, rank: int, world: int) -> None:
        count = task.settings.accumulate
        self._parts = [task.draws(rank * count + part, world * count) for part in range(count)]

    def __getitem__(self, index: int) -> "_Sent | InputError":
        step, part = divmod(index, len(self._parts))
        try:
            return _Sent({name: value.numpy() for name, value in self._parts[part][step].items()})
        except InputError as error:
            return error


def _as_it_is(draw: Any) -> Any:
    return draw


def _end_with_parent(_: int) -> None:
    """End this worker process when the one that reads from it is killed: it would wait for ever in a full pipe."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        while os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _raising(draws: "Iterator[_Sent | InputError]") -> Iterator[Batch]:
    for draw in draws:
        if isinstance(draw, InputError):
            raise draw
        yield draw.batch()


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Tell what became of the processes that draw batches; torch raises that at any place."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader "):
            raise
        reason = str(error).partition(". ")[0]
        raise InputError(
            f"the processes that read the clips do not answer ({reason}); is there memory for them, and is the "
            "folder of the clips within reach? The same command goes on"
        ) from error
