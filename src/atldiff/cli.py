"""The command line: ``atldiff <verb>``. Every verb calls one library function.

Exit codes: 0 done; 1 a fault of this program; 2 something that the caller can mend; 128 + n stopped by
signal n (130 for Ctrl-C, 143 for SIGTERM). Nothing heavy is imported before a verb runs.
"""

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from atldiff import __version__
from atldiff.errors import InputError, OutputError
from atldiff.options import AUTO_EMOTION, EMOTIONS, GenerationOptions

_log = logging.getLogger("atldiff")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``atldiff`` with ``arguments`` (those of the process if None) and return its exit code."""
    # Threads that spin while they wait make two busy programs on two cores several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    verbose = False
    with _stoppable() as stopped:
        try:
            parsed = _parser().parse_args(arguments)
            verbose = parsed.verbose
            with _messages(quiet=parsed.quiet, verbose=verbose):
                parsed.run(parsed)
            return 0
        except _Stopped:
            pass
        except Exception as error:
            if not stopped:
                return _report(error, verbose)
    _say("stopped")
    return 128 + stopped[0]


def _report(error: Exception, verbose: bool) -> int:
    if verbose:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, InputError):
        _say(f"error: {error}")
        return 2
    _say(f"error: {type(error).__name__}: {error}; please report this (-v shows the traceback)")
    return 1


def _say(message: str) -> None:
    print("atldiff:", " ".join(message.split()), file=sys.stderr, flush=True)


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
        return "atldiff: " + level + " ".join(record.getMessage().split())


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


class _ProgressBar:
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


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in the arguments like every other mistake of the caller."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="atldiff", description="Talking-head videos from a portrait and a speech recording.")
    parser.add_argument("--version", action="version", version=f"atldiff {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    common = _Parser(add_help=False)
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more; show tracebacks")
    model = _Parser(add_help=False)
    model.add_argument("--model", metavar="DIR", help="folder of a model (default: the one in the package)")
    model.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s"
    )
    _add_verb(verbs, "generate", _generate, "make a video", [model, common], _generate_arguments)
    _add_verb(verbs, "train", _train, "train a part of the model", [common], _train_arguments)
    _add_verb(verbs, "evaluate", _evaluate, "judge a model on clips", [model, common], _evaluate_arguments)
    return parser


def _add_verb(
    verbs: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    parents: list[argparse.ArgumentParser],
    add_arguments: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=parents)
    parser.set_defaults(run=run)
    add_arguments(parser)


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--portrait", metavar="P", required=True, type=Path, help="a picture, or a video with a face in it")
    add("--speech", metavar="S", required=True, type=Path, help="a sound file, or a video with sound")
    add("-o", "--output", metavar="OUT.mp4", required=True, type=Path, help="the video to write")
    add(
        "--fps",
        metavar="X",
        type=float,
        default=GenerationOptions.fps,
        help="frames per second (default: %(default)g)",
    )
    add("--steps", metavar="N", type=int, help="sampler steps (default: the model's own)")
    add("--seed", metavar="N", type=int, default=GenerationOptions.seed, help="default: %(default)s")
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
    add("--face", metavar="N", type=int, help="which face, from 1 at the left (default: the largest)")
    add("--crop-only", action="store_true", help="write the 128×128 crop of the face, not the whole portrait")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("part", choices=("landmarks", "diffusion", "emotion"), help="which part")
    add("data", metavar="DATA", type=Path, help="folder with a clips.csv, or one of prepared clips")
    add("-o", "--output", metavar="RUN", required=True, type=Path, help="folder of the run; an old run goes on")
    add("--steps", metavar="N", type=int, help="optimiser steps of the whole run")
    add("--max-minutes", metavar="M", type=float, help="stop after so many minutes; run again to go on")
    add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="DATA", type=Path, help="folder with a clips.csv")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for report.json and report.md")
    add("--split", default="val", help="which clips, by their column split (default: %(default)s)")
    add("--per-speaker", metavar="N", type=int, help="at most so many clips of each speaker")
    add("--seed", metavar="N", type=int, default=0, help="default: %(default)s")


def _generate(arguments: argparse.Namespace) -> None:
    steps = GenerationOptions.steps if arguments.steps is None else arguments.steps
    GenerationOptions(arguments.fps, steps, arguments.seed, arguments.emotion, arguments.intensity)

    from atldiff.media import existing_file
    from atldiff.render import render_video
    from atldiff.speech.waveform import Speech
    from atldiff.video.writer import check_output

    existing_file(arguments.portrait, "a picture or a video of a face")
    existing_file(arguments.speech, "a sound file or a video with sound")
    check_output(arguments.output, (arguments.portrait, arguments.speech))
    speech = Speech.open(arguments.speech)
    with _pipeline(arguments) as pipeline, _ProgressBar("frame", arguments.quiet) as progress:
        report = render_video(
            pipeline,
            arguments.portrait,
            speech,
            arguments.output,
            fps=arguments.fps,
            steps=arguments.steps,
            seed=arguments.seed,
            emotion=arguments.emotion,
            intensity=arguments.intensity,
            face=arguments.face,
            crop_only=arguments.crop_only,
            progress=progress,
        )
    if arguments.emotion == AUTO_EMOTION:
        print(f"emotion heard: {report.emotion}")
    print(
        f"{report.path}: {report.duration_s:.2f} s, {report.frames} frames, took {report.seconds:.1f} s, "
        f"real-time factor {report.real_time_factor:.2f}"
    )


@contextlib.contextmanager
def _pipeline(arguments: argparse.Namespace) -> Iterator[Any]:
    began = time.monotonic()
    from atldiff.pipeline import DEFAULT_MODEL, ATLDiffPipeline

    pipeline = ATLDiffPipeline.from_pretrained(arguments.model or DEFAULT_MODEL, arguments.device)
    _log.debug("model loaded on %s in %.1f s", pipeline.device, time.monotonic() - began)
    with contextlib.closing(pipeline):
        yield pipeline


def _train(arguments: argparse.Namespace) -> None:
    wanted = {"steps": arguments.steps, "max_minutes": arguments.max_minutes, "seed": arguments.seed}
    settings = {name: value for name, value in wanted.items() if value is not None}
    if settings.get("steps", 1) < 1:
        raise InputError(f"steps is {arguments.steps}; expected at least 1")
    if not settings.get("max_minutes", math.inf) > 0:
        raise InputError(f"max-minutes is {arguments.max_minutes}; expected more than 0")
    if arguments.part == "emotion" and arguments.max_minutes is not None:
        raise InputError("--max-minutes was given; the emotion part trains within minutes and is never cut short")
    if arguments.seed < 0:
        raise InputError(f"seed is {arguments.seed}; expected at least 0")
    _existing_folder(arguments.data)
    _make_folder(arguments.output)
    if arguments.part == "landmarks":
        from atldiff.training.landmarks import LandmarkTraining, train_landmarks

        prepared = _prepared(arguments.data, arguments.output)
        folder = train_landmarks(prepared, arguments.output, LandmarkTraining(**settings))
    elif arguments.part == "diffusion":
        from atldiff.training.diffusion import DiffusionTraining, train_diffusion

        prepared = _prepared(arguments.data, arguments.output)
        folder = train_diffusion(prepared, arguments.output, DiffusionTraining(**settings))
    else:
        from atldiff.training.emotion import EmotionTraining, train_emotion

        folder = train_emotion(arguments.data, arguments.output, EmotionTraining(**settings))
    print(f"best weights: {folder}")


def _prepared(data: Path, run: Path) -> Path:
    """The folder of prepared clips: ``data`` itself, or what is made of it in the run's folder."""
    from atldiff.data.clips import INDEX_NAME, prepare_clips

    if (data / INDEX_NAME).is_file():
        return data
    prepared = run / "prepared"
    prepare_clips(data, prepared)
    return prepared


def _evaluate(arguments: argparse.Namespace) -> None:
    _existing_folder(arguments.data)
    _make_folder(arguments.output)

    from atldiff.evaluation.protocol import evaluate
    from atldiff.evaluation.report import markdown, write_report
    from atldiff.serialization import write_atomically

    with _pipeline(arguments) as pipeline, _ProgressBar("clip", arguments.quiet) as progress:
        report = evaluate(
            pipeline,
            arguments.data,
            split=arguments.split,
            per_speaker=arguments.per_speaker,
            seed=arguments.seed,
            progress=progress,
        )
    write_report(report, arguments.output / "report.json")
    table = markdown(report)
    write_atomically(arguments.output / "report.md", table.encode())
    print(table)


def _existing_folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; expected a folder of clips")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
