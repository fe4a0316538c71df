"""Small steps of torch in one thread, and the large ones of the image network in a thread beside it."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def pipelined(work: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """What ``work`` makes of the items, in their order; it works on the next while the caller has the last.

    The work has all of torch's threads but one to itself.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(1, "atldiff-network", torch.set_num_threads, (threads - 1,))
    under_way: Future[Made] | None = None
    try:
        for item in items:
            last, under_way = under_way, pool.submit(work, item)
            if last is not None:
                yield last.result()
        if under_way is not None:
            yield under_way.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread of this process's: what is too small to be split is done sooner so."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
