"""Work in a thread of its own: in order, bounded, errors come back, and it can be given up."""

import threading
import time

import pytest

from atldiff.media.background import Background


def test_items_are_worked_on_in_order() -> None:
    done: list[int] = []
    work = Background(done.append, room=2, name="test")
    for item in range(50):
        work.put(item)
    work.finish()
    assert done == list(range(50))


def test_no_more_than_the_room_waits() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        go_on.wait()

    work = Background(wait, room=2, name="test")
    work.put(0)
    begun.wait()
    work.put(1)
    work.put(2)
    late = threading.Thread(target=work.put, args=(3,))
    late.start()
    late.join(0.1)
    assert late.is_alive()
    go_on.set()
    late.join()
    work.finish()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_back_and_ends_the_work(error: type[BaseException]) -> None:
    done: list[int] = []

    def fail_at_three(item: int) -> None:
        if item == 3:
            raise error("no")
        done.append(item)

    work = Background(fail_at_three, room=1, name="test")
    with pytest.raises(error, match="no"):
        for item in range(100):
            work.put(item)
    with pytest.raises(error, match="no"):
        work.finish()
    assert done == [0, 1, 2]
    work.stop()


def test_what_waits_can_be_given_up() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def wait(item: int) -> None:
        begun.set()
        go_on.wait()
        done.append(item)

    work = Background(wait, room=5, name="test")
    for item in range(5):
        work.put(item)
    begun.wait()
    stopping = threading.Thread(target=work.stop)
    stopping.start()
    time.sleep(0.05)
    go_on.set()
    stopping.join()
    assert done == [0]
    assert not [thread for thread in threading.enumerate() if thread.name == "test"]
