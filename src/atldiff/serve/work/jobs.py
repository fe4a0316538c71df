"""The queue of jobs and the threads that hand them to worker processes."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from atldiff.serve.metrics import Metrics
from atldiff.serve.problems import Problem, problem_of
from atldiff.serve.settings import ServeSettings
from atldiff.serve.work.processes import Worker, WorkerSetup
from atldiff.serve.work.store import FAILED, FINAL, QUEUED, RUNNING, Job, JobStore, stopped_problem
from atldiff.serve.work.workloads import DONE, MAKE, PROGRESS, serve_videos

START_TIMEOUT_S = 120.0
"""Seconds that a worker may take to load the model."""

_LOOK_S = 0.5
"""Seconds after which whoever waits looks whether the service is being stopped."""

_LONGEST_PAUSE_S = 30.0
"""Seconds at most between two tries to start a worker that does not start."""

_SWEEP_S = 30.0
"""Seconds between two looks for jobs that are too old."""

_RECOVERY_S = 2.0
"""The same, in seconds, while the table of jobs cannot be written."""

_GUESSED_JOB_S = 10.0
"""Seconds that a job is thought to take before the first has ended."""

_log = logging.getLogger("atldiff")


@dataclass
class _RunningJob:
    """A job that a worker is at."""

    worker: Worker
    options: dict[str, Any]
    progress: tuple[int, int] | None = None
    is_deleted: bool = False


class JobQueue:
    """Jobs from their acceptance to their removal. Every method may be called from any thread.

    Args:
        settings: of the service.
        store: where the jobs are.
        setup: of the workers.
        metrics: are kept up.
        on_end: called with the number of each job that has ended, from any thread.
    """

    def __init__(
        self,
        settings: ServeSettings,
        store: JobStore,
        setup: WorkerSetup,
        metrics: Metrics,
        on_end: Callable[[str], object] = str,
    ) -> None:
        self._on_end = on_end
        self._settings, self._store, self._setup, self._metrics = settings, store, setup, metrics
        self._changed = threading.Condition()
        self._waiting: dict[str, dict[str, Any]] = {}
        self._reserved = 0
        self._running: dict[str, _RunningJob] = {}
        self._ready = 0
        self._fault: Problem | None = None
        self._listening = threading.Lock()
        self._listeners: dict[str, list[Callable[[], object]]] = {}
        self._mean_seconds = _GUESSED_JOB_S
        self._stopping = False
        self._threads = [threading.Thread(target=self._sweep, name="atldiff-sweep", daemon=True)]
        for number in range(settings.workers):
            name = f"atldiff-worker-{number}"
            self._threads.append(threading.Thread(target=self._supervise, name=name, daemon=True))

    def start(self) -> None:
        """Begin to work through the jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the workers; jobs that are not finished have failed."""
        with self._changed:
            self._stopping = True
            left = [*self._waiting, *self._running]
            self._waiting.clear()
            for running in self._running.values():
                running.worker.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for job_id in left:
            with contextlib.suppress(Problem):
                job = self._store.get(job_id)
                if job is not None and job.state not in FINAL:
                    self._end(job_id, stopped_problem())

    @property
    def can_work(self) -> bool:
        """Whether a worker waits for a job, or is at one."""
        return self._ready > 0 or bool(self._running)

    @property
    def fault(self) -> Problem | None:
        """Why no worker can start, where none can."""
        return None if self.can_work else self._fault

    @property
    def ailment(self) -> str:
        """Why nothing can be made, in words for everyone; empty where something can, or will soon."""
        if self._store.fault:
            return "jobs cannot be stored; the service's log says why"
        return "" if self.fault is None else _unable_problem().detail

    @contextlib.contextmanager
    def place(self) -> Iterator[str]:
        """A place in the queue and a folder for a new job, whose number it gives; both are freed at the end of the
        block unless the job is submitted in it.

        Raises:
            Problem: the queue is full, or no worker can start.
        """
        with self._changed:
            if self._fault is not None and not self.can_work:
                raise _unable_problem()
            taken = self._reserved + len(self._waiting) + len(self._running)
            if taken >= self._settings.queue + self._settings.workers:
                seconds = max(1, round(self._mean_seconds))
                headers = {"Retry-After": str(min(600, seconds))}
                raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "the queue is full; try again later", headers=headers)
            self._reserved += 1
            self._show()
        try:
            with self._store.new_folder() as job_id:
                yield job_id
        finally:
            with self._changed:
                self._reserved -= 1
                self._show()

    def submit(self, job_id: str, options: dict[str, Any], owner: str = "", webhook: str | None = None) -> None:
        """Queue the job whose uploads lie in its folder; ``webhook`` is told of its end."""
        with self._changed:
            if self._stopping:
                raise stopped_problem()
            self._store.add(job_id, options, owner, webhook)
            self._waiting[job_id] = options
            self._show()
            self._changed.notify()

    def get(self, job_id: str) -> Job | None:
        """A job with its progress; None where there is none."""
        with self._changed:
            job = self._store.get(job_id)
            return None if job is None else self._now(job)

    def newest(self, owner: str, most: int) -> list[Job]:
        """The jobs of an owner with their progress, the newest first, at most so many."""
        with self._changed:
            return [self._now(job) for job in self._store.newest(owner, most)]

    def _now(self, job: Job) -> Job:
        """A job as the store has it, with what is known besides."""
        running = self._running.get(job.id)
        position = [*self._waiting].index(job.id) + 1 if job.id in self._waiting else None
        if job.state == QUEUED and running is not None:
            job = replace(job, state=RUNNING)
        if job.state not in FINAL and running is None and position is None:
            return replace(job, state=FAILED, problem=_lost_problem().body())
        done, frames = running.progress if running is not None and running.progress else (None, None)
        return replace(job, frames_done=done, frames=frames, position=position)

    def delete(self, job_id: str) -> bool:
        """Stop and forget a job and all of its files; True if there was one."""
        with self._changed:
            job = self._store.get(job_id)
            if job is None or not self._store.remove(job_id):
                return False
            running = self._running.get(job_id)
            if running is not None:
                running.is_deleted = True
                running.worker.kill()
            else:
                self._waiting.pop(job_id, None)
                self._store.remove_folder(job_id)
            self._metrics.jobs.labels("deleted").inc(0 if job.state in FINAL else 1)
            self._show()
        self._wake_listeners(job_id)
        return True

    @contextlib.contextmanager
    def listening(self, job_id: str, listener: Callable[[], object]) -> Iterator[None]:
        """Call ``listener`` from other threads whenever the job changes, for the length of the block."""
        with self._listening:
            self._listeners.setdefault(job_id, []).append(listener)
        try:
            yield
        finally:
            with self._listening:
                self._listeners[job_id].remove(listener)
                if not self._listeners[job_id]:
                    del self._listeners[job_id]

    def _wake_listeners(self, job_id: str) -> None:
        with self._listening:
            listeners = list(self._listeners.get(job_id, ()))
        for listener in listeners:
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                listener()

    def _show(self) -> None:
        self._metrics.queued.set(len(self._waiting) + self._reserved)
        self._metrics.running.set(len(self._running))
        self._metrics.ready_workers.set(self._ready)

    def _supervise(self) -> None:
        """Keep a worker process alive and hand it one job after another, whatever goes wrong with either."""
        pause, starts = 1.0, 0
        while not self._stopping:
            self._metrics.worker_restarts.inc(1 if starts else 0)
            starts += 1
            try:
                with contextlib.closing(Worker(serve_videos, self._setup)) as worker:
                    self._wait_until_ready(worker)
                    pause = 1.0
                    while (job := self._next(worker)) is not None:
                        self._work(*job)
            except Exception as error:
                problem = problem_of(error)
                _log.error("a worker failed: %s", problem.log or problem)
                self._give_up(problem)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, pause)
                pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _give_up(self, fault: Problem) -> None:
        """A worker could not start: if there is no other, nothing that waits will ever be made."""
        with self._changed:
            self._fault = fault
            left = [] if self.can_work else [*self._waiting]
            for job_id in left:
                del self._waiting[job_id]
                self._end(job_id, _unable_problem())
            self._show()
        for job_id in left:
            self._wake_listeners(job_id)

    def _wait_until_ready(self, worker: Worker) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                worker.wait_until_ready(min(_LOOK_S, deadline - time.monotonic()))
                with self._changed:
                    self._fault = None
                return
            if time.monotonic() > deadline:
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a worker did not start in time")

    def _next(self, worker: Worker) -> tuple[str, _RunningJob] | None:
        """The next job for a worker; None if the worker has died, or the service stops."""
        with self._changed:
            self._ready += 1
            self._show()
            try:
                while not self._stopping and worker.is_alive:
                    if self._waiting:
                        job_id = next(iter(self._waiting))
                        running = self._running[job_id] = _RunningJob(worker, self._waiting.pop(job_id))
                        return job_id, running
                    self._changed.wait(_LOOK_S)
                return None
            finally:
                self._ready -= 1
                self._show()

    def _work(self, job_id: str, running: _RunningJob) -> None:
        began = time.monotonic()
        try:
            with contextlib.suppress(Problem):  # the work does not need it to be written down
                self._store.start(job_id)
            self._wake_listeners(job_id)
            outcome = self._outcome(job_id, running, began + self._settings.job_timeout_s)
        except TimeoutError:
            limit = f"the video was not finished within {self._settings.job_timeout_s:g} s"
            outcome = Problem(HTTPStatus.GATEWAY_TIMEOUT, limit)
            running.worker.close()
        except Exception as error:
            outcome = stopped_problem() if self._stopping else problem_of(error)
        with self._changed:
            is_deleted = running.is_deleted
            del self._running[job_id]
            if not is_deleted:
                self._mean_seconds += 0.3 * (time.monotonic() - began - self._mean_seconds)
                self._end(job_id, outcome)
            self._show()
        if is_deleted:
            running.worker.close()
            self._store.remove_folder(job_id)
        self._wake_listeners(job_id)

    def _outcome(self, job_id: str, running: _RunningJob, deadline: float) -> Problem | dict[str, Any]:
        running.worker.send(MAKE, (self._store.job_folder(job_id), running.options))
        while True:
            name, content = running.worker.receive(deadline - time.monotonic())
            if name != PROGRESS:
                return content
            running.progress = content
            self._wake_listeners(job_id)

    def _end(self, job_id: str, outcome: Problem | dict[str, Any]) -> None:
        self._store.finish(job_id, outcome)
        self._on_end(job_id)
        if isinstance(outcome, Problem):
            self._metrics.jobs.labels(FAILED).inc()
            is_ours = outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            _log.log(
                logging.WARNING if is_ours else logging.INFO,
                "job %s failed: %s",
                job_id,
                outcome.log or (outcome.detail if is_ours else outcome.status),
            )
        else:
            self._metrics.jobs.labels(DONE).inc()
            self._metrics.frames.inc(outcome["frames"])
            self._metrics.job_seconds.observe(outcome["seconds"])
            _log.info("job %s done: %d frames in %.1f s", job_id, outcome["frames"], outcome["seconds"])

    def _sweep(self) -> None:
        """Remove what has expired, and see whether jobs can be stored: where they cannot, until they can again."""
        while not self._stopping:
            try:
                self._store.settle()
                self._metrics.jobs.labels("expired").inc(self._store.remove_expired())
            except Exception as error:  # the store has told what fails in it
                if not isinstance(error, Problem):
                    _log.error("removing old jobs failed: %s", problem_of(error).log)
            pause = _RECOVERY_S if self._store.fault else _SWEEP_S
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, min(pause, self._settings.keep_s))


def _unable_problem() -> Problem:
    """Why nothing can be made."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no worker process can start; the service's log says why")


def _lost_problem() -> Problem:
    """Why a job failed of which the end could not be written down."""
    return Problem(HTTPStatus.INSUFFICIENT_STORAGE, "the video could not be written")
