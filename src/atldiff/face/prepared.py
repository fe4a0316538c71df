"""Portraits that have been prepared once: the picture and the face in it, in one file that is safe to open."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from atldiff.errors import InputError
from atldiff.media.files import existing_file

SUFFIX = ".atl"
VERSION = 1

_KEY = "atldiff_face"
_BEGINNING = b'{"__metadata__":{"' + _KEY.encode()
_LENGTH_BYTES = 8
_POINTS = 68
_EXPECTED = "a prepared portrait"


@dataclass(frozen=True)
class PreparedPortrait:
    """A portrait of which the face is known; it is taken wherever a portrait is, and no face has to be found again.

    It keeps what does not change with the model: the picture, and the face's landmarks. The file is one of
    safetensors: two arrays and a JSON text, of which nothing is ever run or unpacked, so it opens at once.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        landmarks: (68, 2) float32 of the face, pixels.
    """

    picture: np.ndarray
    landmarks: np.ndarray

    def save(self, path: str | Path) -> Path:
        """Write a file that :meth:`open` reads; an existing one is replaced only by a finished one.

        Raises:
            InputError: the name does not end in ``.atl``, or the file cannot be written.
        """
        from safetensors.numpy import save

        from atldiff.storage.files import write_atomically

        path = Path(path)
        check_name(path)
        tensors = {"picture": np.ascontiguousarray(self.picture), "landmarks": np.ascontiguousarray(self.landmarks)}
        try:
            write_atomically(path, save(tensors, {_KEY: json.dumps({"version": VERSION})}))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}; expected a writable folder") from error
        return path

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            InputError: missing, damaged, of a later version, or something else.
        """
        path = existing_file(path, _EXPECTED)
        content = path.read_bytes()
        if not _is_prepared(content):
            raise InputError(f"{path} is something else; expected {_EXPECTED}")
        about, tensors = _read(content, path)
        if about.get("version") != VERSION:
            raise InputError(f"{path} is of version {about.get('version')}; expected {VERSION}: prepare it again")
        known = cls(tensors["picture"], tensors["landmarks"])
        if not known._is_sound():
            raise InputError(f"{path} is damaged: no picture with a face; expected {_EXPECTED}")
        return known

    def _is_sound(self) -> bool:
        picture, landmarks = self.picture, self.landmarks
        is_picture = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
        is_face = landmarks.dtype == np.float32 and landmarks.shape == (_POINTS, 2)
        return is_picture and is_face and bool(np.isfinite(landmarks).all())

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        """The face, as a :class:`~atldiff.face.portrait.Judge` gives it."""
        return [self.landmarks]

    def likeness(self, image: np.ndarray, landmarks: np.ndarray) -> float:
        """1: whoever prepared it has been told what it is like."""
        return 1.0


def check_name(path: Path) -> None:
    """Raise InputError unless a prepared portrait may be written under this name."""
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"cannot write {path}: its suffix is {path.suffix!r}; expected {SUFFIX}")


def prepared(portrait: object) -> PreparedPortrait | None:
    """A portrait that is a prepared one, or the file of one; None for any other.

    Raises:
        InputError: the file is damaged, or of a later version.
    """
    if isinstance(portrait, PreparedPortrait):
        return portrait
    if isinstance(portrait, str | Path):
        try:
            with Path(portrait).open("rb") as stream:
                is_prepared = _is_prepared(stream.read(_LENGTH_BYTES + len(_BEGINNING)))
        except (OSError, ValueError):
            return None
        if is_prepared:
            return PreparedPortrait.open(portrait)
    return None


def _is_prepared(content: bytes) -> bool:
    return content[_LENGTH_BYTES:].startswith(_BEGINNING)


def _read(content: bytes, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the file says of itself, and its two arrays."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        about = json.loads(header["__metadata__"][_KEY])
        wanted = {name: tensors[name] for name in ("picture", "landmarks")}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged; expected {_EXPECTED}") from error
    if not isinstance(about, dict):
        raise InputError(f"{path} is damaged; expected {_EXPECTED}")
    return about, wanted
