"""Items side by side on a Ray cluster, the extra ``ray``."""

import logging
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from atldiff.errors import ATLDiffError, InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE_S = 10.0


def run_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], *, address: str, workers: int | None, gpus: int
) -> Iterator[tuple[int, Result | ATLDiffError]]:
    """Like :func:`~atldiff.processes.workers.run_apart` on a Ray cluster.

    Args:
        address: of the cluster.
        workers: items at once; None for as many as the cluster takes.
        gpus: that an item takes.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or no workers.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError('a Ray cluster needs Ray: pip install "atldiff[ray]"') from error
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    _check_that_something_listens(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        raise InputError(f"no Ray cluster at {address!r}: {error}") from error
    needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
    remote = ray.remote(**needs)(function)
    try:
        waiting, running = list(enumerate(items))[::-1], {}
        while waiting or running:
            while waiting and (workers is None or len(running) < workers):
                number, item = waiting.pop()
                running[remote.remote(item)] = number
            ready, _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready[0]), _outcome(ray, ready[0])
    finally:
        ray.shutdown()


def _check_that_something_listens(address: str) -> None:
    """Ray itself waits for a quarter of an hour. Raises InputError: nothing does."""
    found = re.fullmatch(r"(?:[a-z]+://)?\[?([^/]+?)\]?:(\d{1,5})", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"no Ray cluster at {address!r}: {reason}; expected one that is running") from error


def _outcome(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, ATLDiffError) else ATLDiffError(f"{type(cause).__name__}: {cause}")
    except ray.exceptions.RayError as error:
        return InputError(f"the Ray worker ended, perhaps for want of memory: {error}")
