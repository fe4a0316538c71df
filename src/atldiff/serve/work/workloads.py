"""What the worker processes do: check uploads, and make videos."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from atldiff.errors import InputError
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import SEVERAL_FACES, Detector, Judge, load_portrait, select_face
from atldiff.face.prepared import prepared
from atldiff.media.files import open_media
from atldiff.media.film import Film
from atldiff.processes.threads import use_threads
from atldiff.serve.fields import MODES
from atldiff.serve.problems import Problem, problem_of
from atldiff.serve.work.notices import collected
from atldiff.serve.work.processes import READY, WorkerSetup
from atldiff.serve.work.spoken_text import QUICK_CHARACTERS, check_voice, kept_text, say
from atldiff.serve.work.store import PORTRAIT, SPEECH, TEXT, VIDEO, VOICE
from atldiff.speech.waveform import Speech

CHECK, FIND_FACES, MAKE = "check", "find faces", "make"
PASSED, TAKES_LONG, PROGRESS, DONE, FAILED = "passed", "takes long", "progress", "done", "failed"
"""Names of the messages to and from a worker."""

_PROGRESS_STEP_S = 0.1


def serve_checks(pipe: Connection, setup: WorkerSetup) -> None:
    """Answer (folder, numbers of the face and of the sound track or None, whether it is to be dubbed, whether to be
    quick): whether a video can be made of what lies there, or its faces. Where that has to be quick, a portrait that
    is a video is not searched."""
    with FaceDetector() as detector:
        pipe.send((READY, None))
        while True:
            name, (folder, face, track, is_dub, is_quick) = pipe.recv()
            video_detector = _PicturesOnly() if is_quick else detector
            try:
                if is_dub:
                    _check_film(folder, setup.max_duration_s)
                with collected({folder / PORTRAIT: "the portrait"}) as said:
                    found = check_portrait(folder / PORTRAIT, face, detector, setup.max_pixels, video_detector)
                if name == FIND_FACES:
                    warnings = [text for text in said if SEVERAL_FACES not in text]
                    pipe.send((PASSED, faces_in(*found) | {"warnings": warnings}))
                    continue
                _speak(folder, is_quick, setup.max_duration_s)
                with _fault_in(SPEECH, folder):
                    open_speech(folder / SPEECH, setup.max_duration_s)
                if track is not None:
                    with _fault_in("audio_track", folder):
                        open_speech(folder / SPEECH, setup.max_duration_s, track)
            except _TakesLong:
                pipe.send((TAKES_LONG, None))
            except (Problem, MemoryError) as error:
                pipe.send((FAILED, problem_of(error)))
            else:
                pipe.send((PASSED, None))


def _check_film(folder: Path, max_duration_s: float) -> None:
    """Raise Problem for a portrait that is no video, or one that is too long to be dubbed."""
    with _fault_in(PORTRAIT, folder):
        film = Film.open(folder / PORTRAIT)
        if film.stated_frames / film.fps > max_duration_s:
            raise InputError(f"the video lasts longer than {max_duration_s:g} s; expected at most that")


def _speak(folder: Path, is_quick: bool, max_duration_s: float) -> None:
    """Make a recording of a text, where there is one. Raises Problem: the text or the voice is at fault."""
    kept = kept_text(folder)
    if kept is None:
        return
    text, voice = kept
    if is_quick and len(text) > QUICK_CHARACTERS:
        raise _TakesLong
    with _fault_in(VOICE, folder):
        check_voice(voice)
    with _fault_in(TEXT, folder):
        say(text, voice, folder, max_duration_s)


class _TakesLong(Exception):
    """The portrait is a video, or the text is a long one."""


class _PicturesOnly:
    """Stands in for a detector where a video is to be searched for a face."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        raise _TakesLong


def serve_videos(pipe: Connection, setup: WorkerSetup) -> None:
    """Answer (folder, options) by making the video in the folder."""
    use_threads(setup.threads)
    from atldiff.media.signing import default_identity, signing_material
    from atldiff.pipeline import ATLDiffPipeline

    signing_material(default_identity())  # what is wrong there is no fault of a job's
    with contextlib.closing(ATLDiffPipeline.from_pretrained(setup.model, setup.device)) as pipeline:
        pipe.send((READY, None))
        while True:
            _, (folder, options) = pipe.recv()
            try:
                pipe.send((DONE, _make(pipeline, folder, options, setup, pipe)))
            except Exception as error:
                names = {folder / PORTRAIT: "the portrait", folder / SPEECH: "the speech"}
                pipe.send((FAILED, problem_of(error, names=names)))


def check_portrait(
    path: Path, face: int | None, detector: Judge, max_pixels: int, video_detector: Detector
) -> tuple[np.ndarray, Judge]:
    """The picture, and what finds its faces; ``video_detector`` finds it in a video. Raises: Problem: no picture, too
    large, no face, or no face of that number."""
    with _fault_in(PORTRAIT, path.parent):
        known = prepared(path)
        if known is None:
            _check_video_size(path, max_pixels)
            picture = load_portrait(path, video_detector)
        else:
            _check_pixels(known.picture.shape[0] * known.picture.shape[1], max_pixels)
            picture, detector = known.picture, known
        select_face(picture, detector)
    if face is not None:
        with _fault_in("face", path.parent):
            select_face(picture, detector, face)
    return picture, detector


def faces_in(picture: np.ndarray, detector: Detector) -> dict[str, Any]:
    """The size of a picture, (H, W, 3) uint8, and the boxes around the faces in it, from left to right."""
    boxes = [np.concatenate([points.min(axis=0), points.max(axis=0)]) for points in detector.detect(picture)]
    boxes.sort(key=lambda box: float(box[0] + box[2]))
    faces = [
        {"number": number, "x": left, "y": top, "width": right - left, "height": bottom - top}
        for number, (left, top, right, bottom) in enumerate(np.round(boxes, 1).tolist(), start=1)
    ]
    height, width = picture.shape[:2]
    return {"width": width, "height": height, "faces": faces}


def open_speech(path: Path, max_duration_s: float, track: int | None = None) -> Speech:
    """Like :meth:`Speech.open`, but no more than so many seconds are ever decoded. Raises InputError for more."""

    class ShortSpeech(Speech):
        def __init__(self, pieces: Any, path: Path | None = None, name: str = "the speech") -> None:
            super().__init__(lambda: _within(pieces(), max_duration_s), path, name)

    return ShortSpeech.open(path, track)


def _within(pieces: Iterable[Any], max_duration_s: float) -> Iterator[Any]:
    seconds = 0.0
    for piece in pieces:
        seconds += piece.samples.shape[1] / piece.sample_rate
        if seconds > max_duration_s:
            raise InputError(f"the speech lasts longer than {max_duration_s:g} s; expected at most that")
        yield piece


def _check_video_size(path: Path, max_pixels: int) -> None:
    """The number of pixels of a portrait that is a video; pictures are checked where they are opened."""
    with contextlib.suppress(InputError), open_media(path, "a video") as container:
        sizes = ((getattr(stream, "width", 0), getattr(stream, "height", 0)) for stream in container.streams.video)
        _check_pixels(max((width * height for width, height in sizes), default=0), max_pixels)


def _check_pixels(pixels: int, most: int) -> None:
    if pixels > most:
        limit = f"expected at most {most / 1e6:g} megapixels"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"the portrait has too many pixels; {limit}", PORTRAIT)


@contextlib.contextmanager
def _fault_in(field: str, folder: Path) -> Iterator[None]:
    names = {folder / PORTRAIT: "the portrait", folder / SPEECH: "the speech"}
    try:
        yield
    except (Problem, MemoryError, _TakesLong):
        raise
    except InputError as error:
        raise problem_of(error, field, names) from error
    except Exception as error:  # of a decoder that came upon something odd
        detail = f"the {field} cannot be read; expected another file"
        log = problem_of(error).log
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field, log=f"{field}: {log}") from error


def _make(
    pipeline: Any, folder: Path, options: dict[str, Any], setup: WorkerSetup, pipe: Connection
) -> dict[str, Any]:
    mode = options.pop("mode", MODES[0])
    names = {folder / PORTRAIT: "the portrait", folder / SPEECH: "the speech"}
    with collected(names) as said:
        speech = open_speech(folder / SPEECH, setup.max_duration_s, options.pop("audio_track", None))
        make = _dub if mode == MODES[1] else _render
        made = make(pipeline, folder, speech, options, _Reporter(pipe))
    return made | {"bytes": (folder / VIDEO).stat().st_size, "warnings": said}


class _Reporter:
    """Tells how far the work is, not too often; what is read twice counts twice."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._due = pipe, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._due or done == total:
            self._due = now + _PROGRESS_STEP_S
            self._pipe.send((PROGRESS, (done, total)))

    def first_half(self, done: int, total: int) -> None:
        self(done, 2 * total)

    def second_half(self, done: int, total: int) -> None:
        self(total + done, 2 * total)


def _render(
    pipeline: Any, folder: Path, speech: Speech, options: dict[str, Any], reporter: _Reporter
) -> dict[str, Any]:
    from atldiff.render.video import render_video
    from atldiff.serve.work.traces import Traces

    with Traces(folder) as traces:
        report = render_video(
            pipeline, folder / PORTRAIT, speech, folder / VIDEO, progress=reporter, watch=traces.add, **options
        )
        traces.finish(report.fps)
    return {
        "frames": report.frames,
        "fps": round(float(report.fps), 3),
        "duration_s": round(report.duration_s, 3),
        "emotion": report.emotion,
        "seconds": round(report.seconds, 3),
    }


def _dub(pipeline: Any, folder: Path, speech: Speech, options: dict[str, Any], reporter: _Reporter) -> dict[str, Any]:
    from atldiff.render.dub import dub_video
    from atldiff.serve.work.traces import Traces

    with Traces(folder) as traces:
        written = dub_video(
            pipeline,
            folder / PORTRAIT,
            speech,
            folder / VIDEO,
            reading=reporter.first_half,
            progress=reporter.second_half,
            watch=traces.add,
            **options,
        )
        traces.finish(written.fps)
    return {
        "frames": written.report.frames,
        "fps": round(written.fps, 3),
        "duration_s": round(written.duration_s, 3),
        "emotion": "neutral",
        "seconds": round(written.seconds, 3),
        "dubbed": written.report.dubbed,
        "left": written.report.left,
    }
