"""One process at a time works in a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from atldiff.errors import InputError


@contextlib.contextmanager
def hold_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold the file ``path`` locked; the lock ends with this process, however it ends.

    Systems without such locks go without.

    Raises:
        InputError: another process holds it, or has put its folder aside just now; the message is ``busy``.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(busy) from error
            if not (path.exists() and os.path.samestat(os.fstat(handle), path.stat())):
                raise InputError(busy)
        yield
    finally:
        os.close(handle)
