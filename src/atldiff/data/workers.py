"""Clips prepared side by side in processes of their own."""

import contextlib
import functools
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from atldiff.data.parts import Task, Tools, make_part
from atldiff.errors import ATLDiffError, InputError
from atldiff.processes.workers import end_with_parent

_MAX_FACES = 3
_NICENESS = 5


def make_parts(tasks: Sequence[Task], workers: int) -> Iterator[None]:
    """Make the part of every task; yields once for each that is done.

    Raises:
        InputError: a worker died, for example for want of memory.
        OutputError: a part cannot be written.
        ATLDiffError: a clip meets a fault of this program; the text names it.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_begin) as pool:
        try:
            for future in as_completed([pool.submit(_make_part, task) for task in tasks]):
                future.result()
                yield
        except BrokenProcessPool as error:
            at_work = [task.clip.key for task in tasks if not task.part.exists()][:workers]
            raise InputError(
                f"a worker process died at {' or '.join(at_work)}, perhaps for want of memory; what is done is kept: "
                f"run again with fewer than {workers} workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """Prepare a worker process: it waits behind other programs, computes in one thread, and ends with its parent."""
    import torch

    end_with_parent()
    logging.getLogger("atldiff").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICENESS)


def _make_part(task: Task) -> None:
    try:
        make_part(task, _tools())
    except ATLDiffError:
        raise
    except Exception as error:
        raise ATLDiffError(f"preparing {task.clip.picture} failed: {type(error).__name__}: {error}") from error


@functools.cache
def _tools() -> Tools:
    from atldiff.data.sync import LagMeter, SyncMeter
    from atldiff.face.detection import FaceDetector

    return Tools(FaceDetector(_MAX_FACES), LagMeter(), SyncMeter.from_package())
