"""Items side by side in processes of their own; a process that dies takes no more with it than its item."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from atldiff.errors import ATLDiffError, InputError
from atldiff.processes.threads import use_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

CONTEXT = multiprocessing.get_context("spawn")
"""What makes worker processes: they begin with nothing of this one, whose threads would not live on in a fork."""


class LostWorker(InputError):
    """A worker process died, for example for want of memory."""


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_apart(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[int, Result | ATLDiffError]]:
    """Do every item in one of ``workers`` processes.

    What a process has loaded serves its next items too. Processes end with this one, however it ends; leaving the
    iterator early ends them.

    Args:
        function: of a module; it and the items can be pickled.

    Yields:
        (number of the item, what the function gave or the error that it raised), as items end. Where the process
        died, that is a :class:`LostWorker`, and another process goes on with the rest.

    Raises:
        InputError: there are no workers.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    count = min(workers, len(items))
    threads = max(1, processors() // max(1, count))
    waiting, pool = deque(enumerate(items)), [_start(function, threads) for _ in range(count)]
    try:
        while pool:
            for worker in [idle for idle in pool if idle.item is None]:
                if waiting:
                    worker.item, item = waiting.popleft()
                    with contextlib.suppress(ConnectionError):
                        worker.pipe.send(item)
                else:
                    pool.remove(worker)
                    worker.end()
            for ready in wait([worker.pipe for worker in pool]) if pool else []:
                worker = next(worker for worker in pool if worker.pipe is ready)
                assert worker.item is not None
                number, outcome = worker.item, worker.outcome()
                worker.item = None
                if not worker.process.is_alive():
                    pool.remove(worker)
                    pool += [_start(function, threads)] if waiting else []
                yield number, outcome
    finally:
        for worker in pool:
            worker.end()


def end_with_parent() -> None:
    """Let this worker process end as soon as the process that started it has, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def how_it_ended(process: BaseProcess) -> str:
    """What to say of a worker process that was lost."""
    code = process.exitcode
    how = "in an unknown way" if code is None else f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the worker process ended {how}, perhaps for want of memory"


@dataclass
class _Worker:
    """A process, our end of the pipe to it, and the number of the item that it is at."""

    process: BaseProcess
    pipe: Connection
    item: int | None = None

    def outcome(self) -> Any:
        """What came back, or what the death of the process means; waits for either."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return LostWorker(how_it_ended(self.process))

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _start(function: Callable, threads: int) -> _Worker:
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(theirs, function, threads), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Connection, function: Callable, threads: int) -> None:
    end_with_parent()
    use_threads(threads)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            outcome = function(item)
        except ATLDiffError as error:
            outcome = error
        except Exception as error:
            outcome = ATLDiffError(f"{type(error).__name__}: {error}")
        pipe.send(outcome)
