"""Time the stages of a program that runs as it is: each function's own time, without that of timed ones inside."""

import functools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Sums up seconds and calls by stage.

    Attributes:
        seconds, calls: by the stage's name.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._synchronised = device.type == "cuda"
        self._local = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block, without the stages inside it."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()
            self.calls[name] += 1

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Time a function or method of a module or class from now on."""
        function: Callable = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)

    def watch_iterator(self, owner: Any, attribute: str, name: str) -> None:
        """Time what a function's iterator does from now on, item by item."""
        function: Callable[..., Iterator] = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Iterator:
            items = iter(function(*args, **kwargs))
            while True:
                with self.stage(name):
                    item = next(items, items)
                if item is items:
                    return
                yield item

        setattr(owner, attribute, timed)

    @property
    def _stack(self) -> list[str]:
        if not hasattr(self._local, "stack"):
            self._local.stack, self._local.since = [], 0.0
        return self._local.stack

    def _charge(self) -> None:
        """Put down the time since the last change to the stage at work."""
        if self._synchronised:
            torch.cuda.synchronize()
        now, stack = time.perf_counter(), self._stack
        if stack:
            self.seconds[stack[-1]] += now - self._local.since
        self._local.since = now
