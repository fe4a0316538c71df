"""Worker processes: what is uploaded is decoded and worked on there, so that it can harm no more than one job."""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from atldiff.processes import workers
from atldiff.processes.workers import end_with_parent, how_it_ended
from atldiff.serve.problems import Problem, problem_of

READY, BROKEN = "ready", "broken"
"""The first message of a worker: it has loaded what it needs, or could not."""

_FIRST_TO_BE_KILLED = "500"


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is given at its start; the attributes are those of the settings, and its share of threads."""

    model: str
    device: str
    threads: int
    max_duration_s: float
    max_pixels: int
    memory_bytes: int | None


Serve = Callable[[Connection, WorkerSetup], None]
"""What a worker does: load, send ``(READY, None)``, then answer messages for ever."""


class Worker:
    """A process and our end of the pipe to it. Messages are pairs of a name and a content.

    Raises:
        Problem: the system has no room for another process.
    """

    def __init__(self, serve: Serve, setup: WorkerSetup) -> None:
        try:
            self._pipe, theirs = workers.CONTEXT.Pipe()
        except OSError as error:
            raise _no_room(error) from error
        with theirs:
            self._process = workers.CONTEXT.Process(target=_run, args=(theirs, serve, setup), daemon=True)
            try:
                self._process.start()
            except OSError as error:
                self._pipe.close()
                raise _no_room(error) from error

    @property
    def pid(self) -> int:
        """Number of its process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self._process.is_alive()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Raises: Problem: it could not load what it needs. TimeoutError: it has not yet."""
        name, content = self.receive(timeout_s)
        if name != READY:
            raise content

    def send(self, name: str, content: Any = None) -> None:
        """Raises: Problem: it has died."""
        try:
            self._pipe.send((name, content))
        except OSError as error:
            raise self._death() from error

    def receive(self, timeout_s: float) -> tuple[str, Any]:
        """The next message.

        Raises:
            Problem: it has died.
            TimeoutError: no message came in time.
        """
        try:
            if not self._pipe.poll(max(0.0, timeout_s)):
                raise TimeoutError
            return self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._death() from error

    def kill(self) -> None:
        """End it at once, whatever it is doing; any thread may."""
        self._process.kill()

    def close(self) -> None:
        """End it, wait for that, and free what belongs to it."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _death(self) -> Problem:
        self._process.join(timeout=5)
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, how_it_ended(self._process))


def _no_room(error: OSError) -> Problem:
    log = f"no worker process can be started: {error.strerror}"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no worker process can be started; try again later", log=log)


def _run(pipe: Connection, serve: Serve, setup: WorkerSetup) -> None:
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _limit_memory(setup.memory_bytes)
    try:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = setup.max_pixels // 2  # Pillow refuses at twice that
        serve(pipe, setup)
    except EOFError:
        return
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send((BROKEN, problem_of(error)))


def _limit_memory(most: int | None) -> None:
    """A limit of our own, and where the system runs out of memory, this process ends before the service does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_BE_KILLED)
    if most is not None and sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
