"""A bounded queue between two threads, either of which may end it."""

import contextlib
import queue
import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ended(Exception):
    """Nothing more goes through a channel."""


class Channel(Generic[Item]):
    """A queue between two threads with room for ``room`` in all; an item larger than that goes in alone."""

    def __init__(self, room: float) -> None:
        self._room = room
        self._items: deque[tuple[Item, float]] = deque()
        self._held = 0.0
        self._ended = self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: Item, size: float = 1, timeout_s: float | None = None) -> None:
        """Raises: queue.Full: no room in time. Ended: the channel was ended."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._ended or not self._items or self._held + size <= self._room, timeout_s
            ):
                raise queue.Full
            if self._ended:
                raise Ended
            self._items.append((item, size))
            self._held += size
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> Item:
        """Raises: queue.Empty: nothing came in time. Ended: nothing more will come."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, timeout_s):
                raise queue.Empty
            if self._stopped or not self._items:
                raise Ended
            item, size = self._items.popleft()
            self._held -= size
            self._changed.notify_all()
            return item

    def get_all(self, timeout_s: float | None = None) -> list[Item]:
        """All that is waiting, at least one; raises as :meth:`get`."""
        items = [self.get(timeout_s)]
        with contextlib.suppress(queue.Empty, Ended):
            while True:
                items.append(self.get(0))
        return items

    def holds_more(self) -> bool:
        """Whether something can be had at once."""
        with self._changed:
            return bool(self._items)

    def end(self) -> None:
        """Nothing more goes in."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more goes in or comes out."""
        with self._changed:
            self._stopped = True
        self.end()
