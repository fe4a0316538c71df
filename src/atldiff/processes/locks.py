"""One process at a time works in a folder."""

import contextlib
import errno
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

from atldiff.errors import InputError

_held: set[Path] = set()
"""What this process holds, or is about to: to the system all its threads are one holder."""
_turn = threading.Lock()

_LONGEST_NAME = 500


@contextlib.contextmanager
def hold_lock(path: Path, busy: str, expected: str) -> Iterator[None]:
    """Hold the file ``path`` locked, and write into it who does; the lock ends with this process, however it ends.

    It is not handed on to processes that this one starts, which may outlive it. Systems without such locks go
    without.

    Raises:
        InputError: another process holds it, this one does already, or its folder has been put aside just now; the
            message is ``busy``, in brackets who that is, and what is ``expected``.
        OSError: the file cannot be opened.
    """
    place = path.resolve()
    with _turn:
        if place in _held:  # before it is opened: to close the file once more would end the lock
            raise InputError(f"{busy} ({_own_name()}); {expected}")
        _held.add(place)
    try:
        with _opened(place) as handle:
            _claim(handle, place, busy, expected)
            yield
    finally:
        _held.discard(place)


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int]:
    handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _claim(handle: int, place: Path, busy: str, expected: str) -> None:
    if not _take(handle):
        holder = os.pread(handle, _LONGEST_NAME, 0).decode(errors="replace").strip() or "unknown"
        raise InputError(f"{busy} ({holder}); {expected}")
    if not (place.exists() and os.path.samestat(os.fstat(handle), place.stat())):
        raise InputError(f"{busy} (unknown); {expected}")
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.write(handle, f"{_own_name()}\n".encode())


def _own_name() -> str:
    return f"{os.getpid()} on {platform.node()}"


def _take(handle: int) -> bool:
    """False where another process has it."""
    try:
        import fcntl

        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
