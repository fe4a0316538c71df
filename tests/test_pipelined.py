"""The image network works beside the caller, in order, and torch's threads are as before."""

import threading
from collections.abc import Iterator

import pytest
import torch

from atldiff.image.pipelined import one_thread, pipelined


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def at_work() -> int:
    return sum(thread.name.startswith("atldiff-network") for thread in threading.enumerate())


def test_what_is_made_comes_in_order(threads: int) -> None:
    assert list(pipelined(lambda number: number * number, iter(range(7)))) == [0, 1, 4, 9, 16, 25, 36]
    assert list(pipelined(str, iter([]))) == []
    assert at_work() == 0


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_the_next_is_made_while_the_caller_has_the_last(threads: int) -> None:
    reached = threading.Event()
    made = pipelined(lambda number: reached.set() if number else None, range(2))
    next(made)
    assert reached.wait(10)


def test_what_goes_wrong_is_raised_in_its_place(threads: int) -> None:
    made = pipelined(lambda number: 6 // number, [2, 1, 0, 3])
    assert [next(made), next(made)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert at_work() == 0


def test_who_wants_no_more_ends_the_thread(threads: int) -> None:
    made = pipelined(str, iter(range(100)))
    assert next(made) == "0"
    made.close()
    assert at_work() == 0


def test_one_thread_is_for_a_while(threads: int) -> None:
    with pytest.raises(ValueError, match="within"), one_thread():
        assert torch.get_num_threads() == 1
        raise ValueError("within")
    assert torch.get_num_threads() == threads
