"""The command line: ``atldiff <verb>``. Every verb is a module of this package and calls one library function.

Exit codes: 0 done; 1 a fault of this program; 2 something that the caller can mend; 128 + n stopped by
signal n (130 for Ctrl-C, 143 for SIGTERM, 141 where the reader of the output has gone). Nothing heavy is imported
before a verb runs.
"""

import argparse
import contextlib
import difflib
import errno
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol, TextIO

from atldiff._version import __version__
from atldiff.cli import (
    assemble,
    batch,
    convert,
    dub,
    evaluate,
    generate,
    live,
    prepare,
    prepare_portrait,
    serve,
    studio,
    train,
    verify,
)
from atldiff.cli.words import printable
from atldiff.errors import InputError
from atldiff.processes.threads import settle_threads

_log = logging.getLogger("atldiff")

_BROKEN_PIPE = 128 + 13

_OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""Loading torch makes half a million objects that stay: to look through them every 700 takes a tenth of a second."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``atldiff`` with ``arguments`` (those of the process if None) and return its exit code."""
    _open_standard_streams()
    settle_threads()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])
    verbose = False
    with _stoppable() as stopped:
        try:
            parsed = _parser().parse_args(arguments)
            verbose = parsed.verbose
            with _messages(quiet=parsed.quiet, verbose=verbose):
                code = parsed.run(parsed) or 0
                sys.stdout.flush()
            return code
        except _Stopped:
            pass
        except BrokenPipeError:
            return _end_without_reader()
        except Exception as error:
            if not stopped:
                return _report(error, verbose)
    _say("stopped")
    return 128 + stopped[0]


def _open_standard_streams() -> None:
    """Where a standard stream is closed, what goes there goes nowhere, and not into the next file that is opened.
    What a console cannot show is shown as an escape."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end_without_reader() -> int:
    """What is still to be written at the end of the process goes nowhere, without a complaint."""
    _lead_nowhere(sys.stdout)
    return _BROKEN_PIPE


def _lead_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError):  # it is no file of the system
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _report(error: Exception, verbose: bool) -> int:
    if verbose:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, InputError):
        _say(f"error: {error}")
        return 2
    if isinstance(error, OSError) and error.errno in _FULL:
        _say(f"error: cannot write {error.filename or 'to standard output or a file'}: {error.strerror}")
        _lead_nowhere(sys.stdout)
        return 2
    _say(f"error: {type(error).__name__}: {error}; please report this (-v shows the traceback)")
    return 1


def _say(message: str) -> None:
    print("atldiff:", printable(" ".join(message.split())), file=sys.stderr, flush=True)


class Verb(Protocol):
    """A module of this package: what one verb takes, and what it does."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the verb takes."""

    def run(self, arguments: argparse.Namespace) -> int | None:
        """Do what the arguments ask for; gives the exit code, 0 if None. Raises ATLDiffError."""


class _Stopped(BaseException):
    """A signal asks the program to end."""


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Turn the first of ``_SIGNALS`` into ``_Stopped`` and note its number; later ones cannot disturb the end."""
    owner = os.getpid()
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        if not stopped:
            stopped.append(number)
            threading.excepthook = lambda _: None  # helper threads complain when their processes end
            if "multiprocessing" in sys.modules:
                for child in sys.modules["multiprocessing"].active_children():
                    child.terminate()
            raise _Stopped

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    complain = threading.excepthook
    try:
        yield stopped
    finally:
        threading.excepthook = complain
        for number, handler in before.items():
            signal.signal(number, handler)


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return "atldiff: " + level + printable(" ".join(record.getMessage().split()))


@contextlib.contextmanager
def _messages(quiet: bool, verbose: bool) -> Iterator[None]:
    """Show the package's log on standard error, one line a message; -q leaves out all but errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter())
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            if not verbose and not sys.warnoptions:
                warnings.simplefilter("ignore")
            if quiet:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in the arguments like every other mistake of the caller."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}{self._meant(message)} (see {self.prog} --help)")

    def _meant(self, message: str) -> str:
        """The option, verb or choice that looks most like what was not understood."""
        known = list(_option_names(self))
        wrong = re.match(r"unrecognized arguments: (-[\w-]+)", message)
        if wrong is None and (wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)):
            known = re.findall(r"[\w.-]+", wrong[2])
        near = difflib.get_close_matches(wrong[1], known, 1) if wrong else []
        return f"; did you mean {near[0]}?" if near else ""


def _option_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Those of a parser and of the verbs below it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _option_names(below)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="atldiff", description="Talking-head videos from a portrait and a speech recording.")
    parser.add_argument("--version", action="version", version=f"atldiff {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    common = _Parser(add_help=False)
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors (default: no)")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more; show tracebacks (default: no)")
    device = _Parser(add_help=False)
    device.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="auto, cpu, cuda, cuda:1 … or mps (default: %(default)s)",
    )
    _add_verb(verbs, "generate", generate, "make a video", [device, common])
    _add_verb(verbs, "dub", dub, "make a video say something else", [device, common])
    _add_verb(verbs, "prepare-portrait", prepare_portrait, "find the face in a portrait once", [common])
    _add_verb(verbs, "batch", batch, "make many videos", [device, common])
    _add_verb(verbs, "verify", verify, "say whether a video is marked as synthetic", [common])
    _add_verb(verbs, "live", live, "turn sound into frames while it is spoken", [device, common])
    _add_verb(verbs, "studio", studio, "make videos in the browser", [device, common])
    _add_verb(verbs, "serve", serve, "answer requests over HTTP", [device, common])
    _add_verb(verbs, "prepare", prepare, "prepare clips to train on", [common])
    _add_verb(verbs, "train", train, "train a part of the model", [common])
    _add_verb(verbs, "assemble", assemble, "put trained parts together to a model", [common])
    _add_verb(verbs, "evaluate", evaluate, "judge a model on clips", [device, common])
    _add_verb(verbs, "convert", convert, "read published checkpoints", [common])
    return parser


def _add_verb(verbs: Any, name: str, verb: Verb, summary: str, parents: list[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        parents=parents,
        epilog=getattr(verb, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=verb.run)
    verb.add_arguments(parser)
