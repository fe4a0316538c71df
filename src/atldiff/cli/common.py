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
from atldiff.options import FramingOptions, GenerationOptions, known_options

LINE_EVERY_S = 5.0

_log = logging.getLogger("atldiff")


class ProgressBar:
    """A bar with the time left, on standard error if that is a terminal; elsewhere a line every few seconds.

    Args:
        unit: of what is done.
        quiet: whether nothing is shown.
    """

    def __init__(self, unit: str, quiet: bool) -> None:
        self._unit = unit
        self._shown = not quiet
        self._is_terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._began = self._due = 0.0
        self._before: int | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._due = self._began + LINE_EVERY_S
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int, *_: object) -> None:
        if not self._shown:
            return
        if not self._is_terminal:
            self._say_how_far(done, total)
        elif self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit=self._unit, leave=False, dynamic_ncols=True)
        else:
            self._bar.update(done - self._bar.n)

    def _say_how_far(self, done: int, total: int) -> None:
        """What was done before this began, when it went on, tells nothing about how fast it is."""
        if self._before is None:
            self._before = done - 1
        now = time.monotonic()
        if now < self._due or done == total:
            return
        self._due = now + LINE_EVERY_S
        left_s = (now - self._began) / max(1, done - self._before) * (total - done)
        _log.info("%s %d of %d, %d %%, about %s left", self._unit, done, total, 100 * done // total, _span(left_s))


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def open_pipeline(arguments: argparse.Namespace) -> Iterator[Any]:
    """The pipeline that the arguments ask for, open within the block."""
    began = time.monotonic()
    _log.info("loading the model")
    from atldiff.models.loading import DEFAULT_MODEL
    from atldiff.pipeline import ATLDiffPipeline

    pipeline = ATLDiffPipeline.from_pretrained(arguments.model or DEFAULT_MODEL, arguments.device)
    _log.debug("model loaded on %s in %.1f s", pipeline.device, time.monotonic() - began)
    with contextlib.closing(pipeline):
        yield pipeline


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """How the face moves, which face it is, and the model."""
    for name in _GENERATION:
        if name not in _OF_THE_FACE:
            add_option(parser, GenerationOptions, name)
    add_face_options(parser)
    for name in _FRAMING:
        if name not in _OF_THE_FACE:
            add_option(parser, FramingOptions, name)


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Which face speaks, how far its mouth moves, and what makes it."""
    add_option(parser, GenerationOptions, "mouth")
    parser.add_argument("--model", metavar="DIR", help="folder of a model (default: the one in the package)")
    add_option(parser, FramingOptions, "face")


def add_option(parser: argparse.ArgumentParser, table: type, name: str) -> None:
    """An option of one of the tables of :mod:`atldiff.options`; what is left out is its default, or None."""
    about, default = known_options(table)[name]
    shown = about.absent or ("%(default)g" if about.is_number else "%(default)s")
    more: dict[str, Any] = {"help": f"{about.help.format(range=about.range)} (default: {shown})"}
    if about.kind is bool:
        more |= {"action": "store_true"}
    else:
        more |= {"default": None if about.absent else default}
        is_closed = about.choices and about.shown is None
        more |= {"choices": about.choices} if is_closed else {"metavar": about.shown or _METAVARS[about.kind]}
        more |= {"type": about.kind} if about.is_number else {}
    parser.add_argument(f"--{name.replace('_', '-')}", **more)


_METAVARS = {int: "N", float: "X"}
_GENERATION = [name for name in known_options(GenerationOptions) if name != "look_ahead_s"]
_FRAMING = [name for name in known_options(FramingOptions) if name not in ("audio_track", "badge")]
_OF_THE_FACE = ("mouth", "face")


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_generation_options` took, checked, as keyword arguments of the pipeline.

    Raises:
        InputError: a value is out of range.
    """
    options = {name: getattr(arguments, name) for name in _GENERATION}
    GenerationOptions(**{name: value for name, value in options.items() if value is not None})
    return options | {name: getattr(arguments, name) for name in _FRAMING}


def check_folder(path: Path) -> None:
    """Raise InputError where there is no folder."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected a folder of clips")


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """A folder, made where missing, that is taken away again if nothing is put into it for an error."""
    is_new = not path.exists()
    make_folder(path)
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def parent_folder(path: Path) -> Iterator[None]:
    """The folder that a file is to lie in, made where missing; what was made goes again if it stays empty."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    make_folder(path.absolute().parent)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def make_folder(path: Path) -> None:
    """Make a folder that is missing. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
