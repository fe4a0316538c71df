"""What the integrations share: a face in a process of its own."""

import asyncio
import os
from pathlib import Path
from typing import Any

from PIL import Image

from atldiff.errors import ATLDiffError, InputError
from atldiff.live.moment import LOOK_AHEAD_S
from atldiff.processes.workers import processors
from atldiff.serve.live.talking import RemoteFace
from atldiff.serve.live.work import serve_live
from atldiff.serve.problems import Problem
from atldiff.serve.work.processes import Worker, WorkerSetup

START_TIMEOUT_S = 120.0

_MAX_PIXELS = 40_000_000


async def start_face(
    portrait: Any,
    sample_rate: int,
    *,
    model: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    look_ahead_s: float = LOOK_AHEAD_S,
    **options: Any,
) -> RemoteFace:
    """Start a process, load the model in it and let it begin with a face; ``close()`` ends all of it.

    The program has to be importable, as :mod:`multiprocessing` asks of it: what it does stands below
    ``if __name__ == "__main__"``.

    Args:
        portrait: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.live`.
        sample_rate: of the sound in Hz.
        model, device: as for :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.
        threads: of the process; all processors if None.
        look_ahead_s: seconds of the following sound that a frame waits for, 0.08 to 1.
        options: more of those of :meth:`~atldiff.pipeline.ATLDiffPipeline.live`, but for ``max_delay_s`` and
            ``idle_s``.

    Raises:
        InputError: an argument cannot be used.
        ATLDiffError: the process could not be started.
    """
    from atldiff.face.prepared import PreparedPortrait

    if isinstance(portrait, str | os.PathLike):
        portrait = Path(portrait)
    elif not isinstance(portrait, Image.Image | PreparedPortrait) and not hasattr(portrait, "shape"):
        raise InputError(f"got {type(portrait).__name__} as portrait; expected a path, a PIL.Image or an array")
    setup = WorkerSetup(model or "compact", device, threads or processors(), float("inf"), _MAX_PIXELS, None)
    starting = asyncio.get_running_loop().run_in_executor(None, _ready_worker, setup)
    try:
        worker = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(lambda done: done.exception() or done.result().close())
        raise
    try:
        return await RemoteFace.start(
            worker,
            portrait,
            START_TIMEOUT_S,
            owns_worker=True,
            sample_rate=sample_rate,
            look_ahead_s=look_ahead_s,
            **options,
        )
    except BaseException as error:
        await asyncio.to_thread(worker.close)
        if isinstance(error, Problem):
            raise _as_error(error) from error
        raise


def _ready_worker(setup: WorkerSetup) -> Worker:
    try:
        worker = Worker(serve_live, setup)
    except Problem as problem:
        raise _as_error(problem) from problem
    try:
        worker.wait_until_ready(START_TIMEOUT_S)
    except BaseException as error:
        worker.close()
        if isinstance(error, Problem):
            raise _as_error(error) from error
        raise
    return worker


def _as_error(problem: Problem) -> ATLDiffError:
    """A problem as an error of this package."""
    kind = InputError if problem.status < 500 else ATLDiffError
    return kind(problem.detail)
