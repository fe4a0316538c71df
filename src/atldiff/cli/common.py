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
from atldiff.options import AUTO_EMOTION, BLINKS, EMOTIONS, GenerationOptions

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
    add = parser.add_argument
    add(
        "--fps",
        metavar="X",
        type=float,
        default=GenerationOptions.fps,
        help="frames per second (default: %(default)g)",
    )
    add("--steps", metavar="N", type=int, help="sampler steps (default: the model's own)")
    add("--seed", metavar="N", type=int, help="the same seed gives the same frames (default: drawn from the inputs)")
    add(
        "--emotion",
        metavar="NAME",
        default=GenerationOptions.emotion,
        help=f"{', '.join(EMOTIONS)}, or {AUTO_EMOTION} to hear it from the speech (default: %(default)s)",
    )
    add(
        "--intensity",
        metavar="X",
        type=float,
        default=GenerationOptions.intensity,
        help="strength of the expression, 0 to 1 (default: %(default)g)",
    )
    add(
        "--head-motion",
        metavar="X",
        type=float,
        default=GenerationOptions.head_motion,
        help="strength of the head's own motion, 0 to 1 (default: %(default)g)",
    )
    add(
        "--blink",
        choices=BLINKS,
        default=GenerationOptions.blink,
        help="whether the eyes blink (default: %(default)s)",
    )
    add_face_options(parser)
    add("--crop-only", action="store_true", help="write the square crop of the face (default: the portrait)")
    add("--max-size", metavar="N", type=int, help="longest side of the video in pixels, 64 to 4096 (default: 1920)")
    add(
        "--aspect",
        metavar="W:H",
        help="cut the portrait to 9:16, 1:1, 16:9 … around the face (default: its own shape)",
    )
    add(
        "--background",
        metavar="COLOUR",
        help="behind a transparent portrait: a colour, blur or keep (default: mid-grey)",
    )


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Which face speaks, how far its mouth moves, and what makes it."""
    add = parser.add_argument
    add(
        "--mouth",
        metavar="X",
        type=float,
        default=GenerationOptions.mouth,
        help="how far the mouth moves, 0 to 1.5 (default: %(default)g)",
    )
    add("--model", metavar="DIR", help="folder of a model (default: the one in the package)")
    add("--face", metavar="N", type=int, help="which face, from 1 at the left (default: the largest)")


def generation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_generation_options` took, checked, as keyword arguments of the pipeline.

    Raises:
        InputError: a value is out of range.
    """
    names = ("fps", "emotion", "intensity", "head_motion", "blink", "mouth")
    options = {name: getattr(arguments, name) for name in names}
    given = {name: getattr(arguments, name) for name in ("steps", "seed") if getattr(arguments, name) is not None}
    GenerationOptions(**options, **given)
    framing = ("face", "crop_only", "max_size", "aspect", "background")
    return options | {name: getattr(arguments, name) for name in ("steps", "seed", *framing)}


def check_folder(path: Path) -> None:
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
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error
