"""One clip's preparation: from its files to a part, which keeps all that was found until the shards are written.

A part is an uncompressed npz: ``row`` (JSON), for a clip that is not rejected ``landmarks`` and ``video`` (the mp4's
bytes), and for one that is heard ``sound`` (16 kHz, 16 bit, the lag still in it), and what its lips and its sound say
about the lag (``lag``) and about whether they belong together (``sync``).
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from atldiff.data import quality
from atldiff.data.encoding import encode_video
from atldiff.data.index import EMPTY_ROW
from atldiff.data.media_source import SourceClip
from atldiff.data.prepared import PARTS_NAME, PreparedClip, clip_info
from atldiff.data.sync import LagMeter, LagTrace, SyncMeter
from atldiff.data.tracking import Footage, fill_gaps, track_landmarks
from atldiff.errors import InputError, OutputError
from atldiff.face.crop import face_crop
from atldiff.face.detection import FaceDetector
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import read_waveform
from atldiff.storage.files import write_atomically

_FULL_SCALE = 32767


@dataclass(frozen=True)
class Part:
    """What was found of one clip.

    Attributes:
        row: the clip's row of the index, as far as it is known.
        landmarks: (F, 68, 2) float32 crop pixels; empty for a rejected clip, as are the others.
        video: the crops as mp4.
        sound: (samples,) int16 at 16 kHz as recorded: its first sample belongs to the first picture; empty where the
            row's ``unheard`` says why it cannot be used.
        lag: the trace that its lag is found from; None without sound.
        sync: the trace that says whether its lips belong to the sound; None without sound.
    """

    row: dict[str, Any]
    landmarks: np.ndarray
    video: bytes
    sound: np.ndarray
    lag: LagTrace | None = None
    sync: LagTrace | None = None


@dataclass(frozen=True)
class Tools:
    """What a worker process keeps from clip to clip."""

    detector: FaceDetector
    lag: LagMeter
    sync: SyncMeter


@dataclass(frozen=True)
class Task:
    """One clip to prepare.

    Attributes:
        known: its row in the index of an earlier run that ``destination`` still holds; None for a new clip.
    """

    clip: SourceClip
    source: Path
    destination: Path
    size: int
    fps: Fraction
    known: dict[str, Any] | None = None

    @property
    def part(self) -> Path:
        return part_path(self.destination, self.clip.key)


def part_path(destination: Path, key: str) -> Path:
    """Where the part of a clip lies."""
    return destination / PARTS_NAME / f"{key}.npz"


def make_part(task: Task, tools: Tools) -> None:
    """Prepare a clip, or take up what an earlier run made of it, and write its part.

    Raises:
        OutputError: the part cannot be written.
    """
    part = _known_part(task, task.known, tools) if task.known else _new_part(task, tools)
    stream = io.BytesIO()
    arrays = {"row": np.frombuffer(json.dumps(part.row).encode(), np.uint8)}
    if part.video:
        arrays["landmarks"], arrays["video"] = part.landmarks, np.frombuffer(part.video, np.uint8)
    if part.lag is not None and part.sync is not None:
        arrays["sound"], arrays["lag"], arrays["sync"] = part.sound, part.lag.to_array(), part.sync.to_array()
    np.savez(stream, allow_pickle=False, **arrays)
    try:
        write_atomically(task.part, stream.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write {task.part}: {error.strerror}; what is done is kept") from error


def read_part(path: Path, row_only: bool = False) -> Part:
    """A part that :func:`make_part` wrote; with ``row_only`` nothing but its row and traces.

    Raises:
        InputError: it is damaged or not there.
    """
    with _arrays_of(path) as arrays:
        row = json.loads(arrays["row"].tobytes())
        traces = [LagTrace.from_array(arrays[name]) for name in ("lag", "sync") if name in arrays]
        if row_only or "video" not in arrays:
            return Part(row, np.empty(0), b"", np.empty(0), *traces)
        sound = arrays["sound"] if traces else np.empty(0)
        return Part(row, arrays["landmarks"], arrays["video"].tobytes(), sound, *traces)


def read_sound(path: Path) -> np.ndarray:
    """The sound alone of a part whose clip is heard. Raises InputError as :func:`read_part` does."""
    with _arrays_of(path) as arrays:
        return arrays["sound"]


@contextlib.contextmanager
def _arrays_of(path: Path) -> Iterator[Any]:
    try:
        with np.load(path) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run the preparation again") from error


def kept_parts(destination: Path) -> set[str]:
    """The keys of the clips whose parts are there."""
    parts = destination / PARTS_NAME
    return {path.relative_to(parts).with_suffix("").as_posix() for path in parts.rglob("*.npz")}


def is_made(task: Task) -> bool:
    """Whether the clip's part is there, whole, and of the same file."""
    try:
        return read_part(task.part, row_only=True).row["source"] == stated_row(task)["source"]
    except InputError:
        return False


def _new_part(task: Task, tools: Tools) -> Part:
    """Hear, track, judge and crop one clip; it lasts as long as its picture, or its sound where that is shorter."""
    sound, unheard = _heard(task)
    try:
        with task.clip.picture.open() as picture:
            footage = Footage.open(picture).at(task.fps)
            unheard = unheard or _silence(sound, len(footage), task.fps)
            if not unheard:
                footage = footage[: round(len(sound) * task.fps / SAMPLE_RATE)]
            rejected = quality.length_verdict(len(footage))
            landmarks = np.empty(0) if rejected else track_landmarks(footage, tools.detector)
            rejected = rejected or quality.face_verdict(landmarks) or quality.crowd_verdict(footage, tools.detector)
            if rejected:
                return _rejected(task, rejected)
            landmarks, video, rejected = _crops(footage, fill_gaps(landmarks), task)
    except InputError as error:
        return _rejected(task, _unreadable(task, error))
    return _rejected(task, rejected) if rejected else _whole(task, landmarks, video, sound, unheard, tools)


def _crops(footage: Footage, landmarks: np.ndarray, task: Task) -> tuple[np.ndarray, bytes, str]:
    """(F, 68, 2) picture pixels → the same in crop pixels, the crops as mp4, and why they are unusable."""
    crop = face_crop(landmarks, task.size)
    thumbnails = []

    def pictures() -> Iterator[np.ndarray]:
        for frame in footage:
            picture = crop.cut(frame)
            thumbnails.append(quality.thumbnail(picture))
            yield picture

    video = encode_video(pictures(), task.fps)
    return crop.to_crop(landmarks), video, quality.cut_verdict(thumbnails, float(task.fps))


def _known_part(task: Task, known: dict[str, Any], tools: Tools) -> Part:
    """The part of a clip that an earlier run prepared: crops and landmarks as they are, the sound read again.

    Where the shard does not give them back whole, the clip is prepared anew.
    """
    if known["rejected"]:
        return _rejected(task, known["rejected"])
    clip = PreparedClip(clip_info(known), task.destination)
    try:
        landmarks, video = clip.landmarks(), clip.member("video")
        clip.frames(len(landmarks) - 1, 1)
    except InputError:
        return _new_part(task, tools)
    sound, unheard = _heard(task)
    unheard = unheard or _silence(sound, len(landmarks), task.fps)
    return _whole(task, landmarks, video, sound, unheard, tools)


def _silence(sound: np.ndarray, frames: int, fps: Fraction) -> str:
    """The verdict on what is heard of (samples,) int16 during so many frames."""
    return quality.sound_verdict(as_waveform(sound[: round(frames * SAMPLE_RATE / fps)]))


def _heard(task: Task) -> tuple[np.ndarray, str]:
    """The sound (samples,) int16 of a clip, or why there is none."""
    try:
        with task.clip.sound.open() as path:
            return np.round(np.clip(read_waveform(path), -1, 1) * _FULL_SCALE).astype(np.int16), ""
    except InputError as error:
        return np.empty(0, np.int16), _unreadable(task, error)


def _whole(task: Task, landmarks: np.ndarray, video: bytes, sound: np.ndarray, unheard: str, tools: Tools) -> Part:
    row = stated_row(task) | {"frames": len(landmarks), "duration_s": float(len(landmarks) / task.fps)}
    if unheard:
        return Part(row | {"unheard": unheard}, landmarks, video, np.empty(0))
    heard = landmarks, as_waveform(sound), float(task.fps)
    return Part(row, landmarks, video, sound, tools.lag.trace(*heard), tools.sync.trace(*heard))


def as_waveform(sound: np.ndarray) -> np.ndarray:
    """(samples,) int16 → float32 in [-1, 1]."""
    return sound.astype(np.float32) / _FULL_SCALE


def _unreadable(task: Task, error: InputError) -> str:
    reason = " ".join(str(error).replace(f"{task.source}{os.sep}", "").split())
    return f"{quality.UNREADABLE}: {reason}"


def _rejected(task: Task, reason: str) -> Part:
    return Part(stated_row(task) | {"rejected": reason}, np.empty(0), b"", np.empty(0))


def stated_row(task: Task) -> dict[str, Any]:
    """A row of the index with what is known before the clip is opened."""
    clip = task.clip
    stated = {name: getattr(clip, name) for name in ("key", "corpus", "speaker", "emotion", "level", "split", "text")}
    place = {"source": clip.picture.inside(task.source), "fps": float(task.fps), "size": task.size}
    return EMPTY_ROW | stated | place
