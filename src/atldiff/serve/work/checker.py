"""The processes that look at uploads before they are queued."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atldiff.serve.problems import Problem
from atldiff.serve.work.processes import Worker, WorkerSetup
from atldiff.serve.work.store import stopped_problem
from atldiff.serve.work.workloads import CHECK, FIND_FACES, PASSED, TAKES_LONG, serve_checks

_START_TIMEOUT_S = 60.0
"""Seconds that the worker may take to start."""

_MOST_WAITING = 8
"""Looks at uploads that are under way or wait at once; more are refused."""

_QUICK_S = 5.0
"""Seconds after which a file goes on to the worker for those that take long."""

_LOOK_S = 0.2
"""Seconds after which a check looks whether anybody still waits for it."""

_WORTH_A_RESTART_S = 3.0
"""Seconds for which a check goes on although nobody waits for it: another process takes time to start."""


class Checker:
    """Checks uploads in two processes: one for pictures, and one, started when it is first needed, for what takes
    longer, so that a picture waits for no video. One that is killed by an upload is started anew."""

    def __init__(self, setup: WorkerSetup, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._places = threading.BoundedSemaphore(_MOST_WAITING)
        self._quick, self._slow = _Lane(setup), _Lane(setup)

    def start(self) -> None:
        """Start the first process without waiting for it."""
        self._quick.start()

    def stop(self) -> None:
        """End the processes; a check that one of them is at fails."""
        for lane in (self._quick, self._slow):
            lane.stop()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who ask without a place in the queue of jobs. Raises Problem: all are taken."""
        if not self._places.acquire(blocking=False):
            headers = {"Retry-After": "1"}
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too many at once; try again later", headers=headers)
        try:
            yield
        finally:
            self._places.release()

    def check(
        self, folder: Path, face: int | None, track: int | None, is_dub: bool, abandoned: threading.Event
    ) -> None:
        """Wait until the uploads in ``folder`` have been looked at.

        Args:
            folder: that of the job.
            face: the number of the one that is to speak.
            track: the number of the sound track.
            is_dub: whether the portrait is a video that is to be dubbed.
            abandoned: is set when nobody waits for the answer any longer.

        Raises:
            Problem: no video can be made of them; ``field`` says which is at fault. Or the check was abandoned.
        """
        self._ask(CHECK, (folder, face, track, is_dub), abandoned)

    def faces(self, folder: Path, abandoned: threading.Event) -> dict[str, Any]:
        """What :func:`~atldiff.serve.work.workloads.faces_in` says of the portrait in ``folder``; raises as above."""
        return self._ask(FIND_FACES, (folder, None, None, False), abandoned)

    def _ask(self, question: str, asked: tuple[Any, ...], abandoned: threading.Event) -> Any:
        name: str = TAKES_LONG
        content: Any = None
        with contextlib.suppress(TimeoutError):
            limit_s = min(_QUICK_S, self._timeout_s)
            name, content = self._quick.ask(question, (*asked, True), limit_s, abandoned)
        if name == TAKES_LONG:
            try:
                name, content = self._slow.ask(question, (*asked, False), self._timeout_s, abandoned)
            except TimeoutError as error:
                limit = f"within {self._timeout_s:g} s; expected simpler or shorter ones"
                detail = f"the files could not be read {limit}"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
        if name != PASSED:
            raise content
        return content


class _Lane:
    """A process, and those who wait for it."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._turn = threading.Lock()
        self._worker: Worker | None = None
        self._is_ready = False
        self._has_ended = False

    def start(self) -> None:
        self._worker, self._is_ready = Worker(serve_checks, self._setup), False

    def stop(self) -> None:
        self._has_ended = True
        if self._worker is not None:
            self._worker.kill()
        with self._turn:
            self._close()

    def ask(self, name: str, content: Any, limit_s: float, abandoned: threading.Event) -> tuple[str, Any]:
        """The process' answer.

        Raises:
            Problem: it died over the question twice (the first time may have had another cause), or could not start,
                or the question was abandoned.
            TimeoutError: it had no answer within ``limit_s``.
        """
        while not self._turn.acquire(timeout=_LOOK_S):
            _check_that_someone_waits(abandoned)
        try:
            _check_that_someone_waits(abandoned)
            deaths = 0
            while True:
                worker = self._ready_worker(abandoned)
                try:
                    worker.send(name, content)
                    return _answer(worker, limit_s, abandoned)
                except TimeoutError:
                    self._close()
                    raise
                except Problem as error:
                    self._close()
                    if self._has_ended:
                        raise stopped_problem() from error
                    deaths += 1
                    if abandoned.is_set():
                        raise
                    if deaths == 2:
                        detail = f"the files could not be read: {error.detail}"
                        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
        finally:
            self._turn.release()

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _ready_worker(self, abandoned: threading.Event) -> Worker:
        if self._has_ended:
            raise stopped_problem()
        if self._worker is None or not self._worker.is_alive:
            self._close()
            self.start()
        assert self._worker is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready:
            try:
                self._worker.wait_until_ready(_LOOK_S)
                self._is_ready = True
            except TimeoutError as error:
                _check_that_someone_waits(abandoned)
                if time.monotonic() > deadline:
                    self._close()
                    raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a worker did not start in time") from error
        return self._worker


def _answer(worker: Worker, limit_s: float, abandoned: threading.Event) -> tuple[str, Any]:
    """The next message. A check that nobody waits for goes on for a while: another process takes time to start."""
    began = time.monotonic()
    while True:
        passed_s = time.monotonic() - began
        if passed_s > _WORTH_A_RESTART_S:
            _check_that_someone_waits(abandoned)
        try:
            return worker.receive(min(_LOOK_S, limit_s - passed_s))
        except TimeoutError:
            if passed_s >= limit_s:
                raise


def _check_that_someone_waits(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise Problem(HTTPStatus.GONE, "nobody waits for the check any longer")
