"""The forms in which callers hand over a picture or sound: paths, bytes, open files, arrays, tensors."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from atldiff.errors import InputError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(value: str | os.PathLike[str], expected: str) -> Path:
    """The path that a caller named, which is no web address.

    Raises:
        InputError: it is an address, or holds a NUL.
    """
    text = os.fspath(value)
    if _ADDRESS.match(text) and not Path(text).drive and not os.path.lexists(text.replace("\0", "")):
        raise InputError(f"{text} is an address, and nothing is downloaded here; expected {expected} on this machine")
    if "\0" in text:
        raise InputError(f"the path {text!r} holds a NUL; expected {expected}")
    return Path(text)


def content_of(value: Any) -> bytes | None:
    """The bytes of what holds a file's content (bytes, an open binary file); None of anything else.

    Raises:
        InputError: the file gives text, or cannot be read.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.ndarray) or not callable(getattr(value, "read", None)):
        return None
    try:
        content = value.read()
    except (OSError, ValueError) as error:
        raise InputError(f"the open file cannot be read ({error})") from error
    if not isinstance(content, bytes):
        raise InputError("the open file gives text; expected one opened in binary mode")
    return content


def standard_input() -> bytes:
    """All of standard input. Raises InputError: it is a terminal, or empty."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input is a terminal; expected a sound file on it")
    content = sys.stdin.buffer.read()
    if not content:
        raise InputError("standard input is empty; expected a sound file on it")
    return content


def plain_array(value: Any) -> np.ndarray | None:
    """A NumPy array of an array, a tensor of any device, or nested lists of numbers; None of anything else."""
    if isinstance(value, np.ndarray):
        return value
    if callable(getattr(value, "detach", None)):
        value = value.detach().cpu()
        if "float" in str(value.dtype):
            value = value.float()
        return value.numpy()
    if hasattr(value, "__array__") and not hasattr(value, "getbands"):
        return np.asarray(value)
    if isinstance(value, list):
        try:
            array = np.asarray(value)
        except ValueError:
            return None
        return array if array.dtype.kind in "if" and array.size else None
    return None
