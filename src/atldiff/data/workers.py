"""Clips prepared side by side in processes of their own."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence

from atldiff.data.parts import Task, Tools, make_part
from atldiff.errors import ATLDiffError, InputError
from atldiff.processes.workers import LostWorker, run_apart

_MAX_FACES = 3
_NICENESS = 5


def make_parts(tasks: Sequence[Task], workers: int) -> Iterator[None]:
    """Make the part of every task; yields once for each that is done.

    Raises:
        InputError: a worker died, for example for want of memory.
        OutputError: a part cannot be written.
        ATLDiffError: a clip meets a fault of this program; the text names it.
    """
    for number, outcome in run_apart(_make_part, tasks, workers):
        if isinstance(outcome, LostWorker):
            raise InputError(
                f"a worker process died at {tasks[number].clip.key}, perhaps for want of memory; what is done is "
                f"kept: run again with fewer than {workers} workers"
            ) from outcome
        if isinstance(outcome, ATLDiffError):
            raise outcome
        yield


def _make_part(task: Task) -> None:
    try:
        make_part(task, _tools())
    except ATLDiffError:
        raise
    except Exception as error:
        raise ATLDiffError(f"preparing {task.clip.picture} failed: {type(error).__name__}: {error}") from error


@functools.cache
def _tools() -> Tools:
    """Of this worker process, which from now on waits behind other programs and computes in one thread."""
    import torch

    from atldiff.data.sync import LagMeter, SyncMeter
    from atldiff.face.detection import FaceDetector

    logging.getLogger("atldiff").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICENESS)
    return Tools(FaceDetector(_MAX_FACES), LagMeter(), SyncMeter.from_package())
