"""What several verbs share: the model, the progress bar, folders."""

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from atldiff.errors import InputError, OutputError

_log = logging.getLogger("atldiff")


class ProgressBar:
    """A bar with the time left, on standard error if that is a terminal."""

    def __init__(self, unit: str, quiet: bool) -> None:
        self._unit = unit
        self._shown = not quiet and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int, *_: object) -> None:
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=self._unit, leave=False, dynamic_ncols=True)
        else:
            self._bar.update(done - self._bar.n)


@contextlib.contextmanager
def open_pipeline(arguments: argparse.Namespace) -> Iterator[Any]:
    began = time.monotonic()
    from atldiff.pipeline import DEFAULT_MODEL, ATLDiffPipeline

    pipeline = ATLDiffPipeline.from_pretrained(arguments.model or DEFAULT_MODEL, arguments.device)
    _log.debug("model loaded on %s in %.1f s", pipeline.device, time.monotonic() - began)
    with contextlib.closing(pipeline):
        yield pipeline


def check_folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected a folder of clips")


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
