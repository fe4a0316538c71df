"""Work on one item after another in a thread of its own, while the caller makes the next."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """Does one kind of work on items, in the order in which they are handed over.

    After an error no further item is worked on; whoever hands over the next one, or finishes, gets the error.

    Args:
        work: done on each item.
        room: how many items wait at most, at least 1.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Item], None], room: int, name: str) -> None:
        self._work = work
        self._items: queue.Queue[Item | None] = queue.Queue(room)
        self._error: BaseException | None = None
        self._idle = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item, which is not None; waits while there is no room."""
        if self._error is None:
            self._items.put(item)
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all is done. Raises what went wrong."""
        self._end()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give up what waits, and wait for what is at work; nothing to do after :meth:`finish`."""
        self._idle = True
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._items.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._idle:
                continue
            try:
                self._work(item)
            except BaseException as error:
                self._error, self._idle = error, True
