"""How the threads of one process wait for each other, and share its memory."""

import contextlib
import ctypes
import os
import sys

_M_ARENA_MAX = -8
"""Of glibc's mallopt."""

_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def settle_threads() -> None:
    """Let torch's threads look for work for some microseconds before they sleep; to be called before torch is loaded.

    Threads that spin for long make two busy programs on two cores several times slower. Those that sleep at once cost
    the small pieces of live use a fifth of their time: 63 ms of the network for two frames, 50 ms so (two cores); two
    programs at once lose 7 % by it. What the user has set stays.
    """
    _share_memory()
    if any(name in os.environ for name in _VARIABLES):
        return
    if sys.platform == "linux":
        # without ACTIVE libgomp has no patience left where several threads have teams of their own, as in live use.
        os.environ.update(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="3000", KMP_BLOCKTIME="0")
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _share_memory() -> None:
    """Let what a thread has freed be used by others (glibc): else each keeps as much as it ever had.

    Two share, in turn: with all in one, the network's thread and the main one wait for each other (a video takes 7 %
    longer, in 10 MiB less).
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def use_threads(count: int) -> None:
    """Load torch in a worker process, with so many threads that wait as :func:`settle_threads` says."""
    settle_threads()
    import torch

    torch.set_num_threads(count)
