"""What a job leaves besides its video: the first frame as soon as it is there, and the landmarks of all."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import numpy as np

from atldiff.errors import OutputError
from atldiff.media.jpeg import encode_jpeg
from atldiff.results import Frame
from atldiff.serve.work.store import LANDMARKS, PREVIEW
from atldiff.storage.files import write_atomically

_LARGEST_PREVIEW = 1024
_DECIMALS = 2


class Traces:
    """Writes a job's preview and landmarks, frame by frame.

    Raises:
        OutputError: something cannot be written; so do the methods.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frames = 0
        self._file: TextIO
        with _writing():
            self._file = (folder / LANDMARKS).open("w")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, frame: Frame) -> None:
        """The next frame."""
        with _writing():
            if self._frames == 0:
                write_atomically(self._folder / PREVIEW, encode_jpeg(frame.picture, longest=_LARGEST_PREVIEW))
                height, width = frame.picture.shape[:2]
                self._file.write(f'{{"width": {width}, "height": {height}, "landmarks": [')
            points = np.round(frame.landmarks.astype(np.float64), _DECIMALS).tolist()
            self._file.write(("," if self._frames else "") + json.dumps(points, separators=(",", ":")))
        self._frames += 1

    def finish(self, fps: float) -> None:
        """The last frame has been added."""
        with _writing():
            self._file.write(f'], "fps": {json.dumps(fps)}}}')
            self._file.close()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write beside the video: {error.strerror}") from error
