"""The process that looks at uploads before they are queued."""

import contextlib
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atldiff.serve.problems import Problem
from atldiff.serve.processes import Worker, WorkerSetup
from atldiff.serve.workloads import CHECK, FIND_FACES, PASSED, serve_checks

_START_TIMEOUT_S = 60.0
_MOST_WAITING = 8


class Checker:
    """Checks one upload after another in a process of its own, which is started anew where one kills it."""

    def __init__(self, setup: WorkerSetup, timeout_s: float) -> None:
        self._setup, self._timeout_s = setup, timeout_s
        self._mutex = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_WAITING)
        self._worker: Worker | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start the process without waiting for it."""
        self._worker, self._is_ready = Worker(serve_checks, self._setup), False

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

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

    def check(self, folder: Path, face: int | None) -> None:
        """Wait until the uploads in ``folder`` have been looked at.

        Raises:
            Problem: no video can be made of them; ``field`` says which is at fault.
        """
        self._ask(CHECK, folder, face)

    def faces(self, folder: Path) -> dict[str, Any]:
        """What :func:`~atldiff.serve.workloads.faces_in` says of the portrait in ``folder``; raises as above."""
        return self._ask(FIND_FACES, folder, None)

    def _ask(self, question: str, folder: Path, face: int | None) -> Any:
        with self._mutex:
            worker = self._ready_worker()
            try:
                worker.send(question, (folder, face))
                name, content = worker.receive(self._timeout_s)
            except TimeoutError as error:
                self.stop()
                limit = f"within {self._timeout_s:g} s; expected simpler or shorter ones"
                detail = f"the files could not be read {limit}"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
            except Problem as error:
                self.stop()
                detail = f"the files could not be read: {error.detail}"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error
        if name != PASSED:
            raise content
        return content

    def _ready_worker(self) -> Worker:
        if self._worker is None or not self._worker.is_alive:
            self.stop()
            self.start()
        assert self._worker is not None
        if not self._is_ready:
            try:
                self._worker.wait_until_ready(_START_TIMEOUT_S)
            except TimeoutError as error:
                self.stop()
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a worker did not start in time") from error
            self._is_ready = True
        return self._worker
