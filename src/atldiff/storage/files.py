"""Files that nobody ever sees a half of, and JSON in them."""

import contextlib
import json
import os
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from atldiff.errors import ModelError

_LARGEST_JSON = 2**20


def write_atomically(path: Path, content: bytes, durably: bool = False) -> None:
    """Write ``content`` beside ``path`` and move it into place, so that no reader ever sees a half of it.

    Args:
        durably: wait until it is on the disk, so that it outlives a power cut from the return on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durably:
                stream.flush()
                os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        if durably:
            _flush_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk; systems that cannot go without."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of a model folder.

    Raises:
        ModelError: there is no such file, it is too large, or it is not JSON.
    """
    if not path.is_file():
        raise ModelError(f"the model folder lacks {path.name}: expected {path}")
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise ModelError(f"{path} has {size} bytes; expected at most {_LARGEST_JSON}")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} is not valid JSON: {textwrap.shorten(str(reason), 200)}") from error
