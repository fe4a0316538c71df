"""One clip's wanted: from its files to its findings, which are kept until the shards are written.

They are an uncompressed npz: ``row`` (JSON), for a clip that is not rejected ``landmarks`` and ``video`` (the mp4's
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
from atldiff.data.prepared import FINDINGS_NAME, PreparedClip, clip_info
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
class Findings:
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
class WantedClip:
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
    def findings_path(self) -> Path:
        """Where what is found of it lies."""
        return findings_path(self.destination, self.clip.key)


def findings_path(destination: Path, key: str) -> Path:
    """Where the findings of a clip lie."""
    return destination / FINDINGS_NAME / f"{key}.npz"


def make_findings(wanted: WantedClip, tools: Tools) -> None:
    """Prepare a clip, or take up what an earlier run made of it, and write its findings.

    Raises:
        OutputError: they cannot be written.
    """
    found = _known_findings(wanted, wanted.known, tools) if wanted.known else _new_findings(wanted, tools)
    stream = io.BytesIO()
    arrays = {"row": np.frombuffer(json.dumps(found.row).encode(), np.uint8)}
    if found.video:
        arrays["landmarks"], arrays["video"] = found.landmarks, np.frombuffer(found.video, np.uint8)
    if found.lag is not None and found.sync is not None:
        arrays["sound"], arrays["lag"], arrays["sync"] = found.sound, found.lag.to_array(), found.sync.to_array()
    np.savez(stream, allow_pickle=False, **arrays)
    try:
        write_atomically(wanted.findings_path, stream.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write {wanted.findings_path}: {error.strerror}; what is done is kept") from error


def read_findings(path: Path, row_only: bool = False) -> Findings:
    """What :func:`make_findings` wrote; with ``row_only`` nothing but the row and the traces.

    Raises:
        InputError: it is damaged or not there.
    """
    with _arrays_of(path) as arrays:
        row = json.loads(arrays["row"].tobytes())
        traces = [LagTrace.from_array(arrays[name]) for name in ("lag", "sync") if name in arrays]
        if row_only or "video" not in arrays:
            return Findings(row, np.empty(0), b"", np.empty(0), *traces)
        sound = arrays["sound"] if traces else np.empty(0)
        return Findings(row, arrays["landmarks"], arrays["video"].tobytes(), sound, *traces)


def read_sound(path: Path) -> np.ndarray:
    """The sound alone of a clip that is heard. Raises InputError as :func:`read_findings` does."""
    with _arrays_of(path) as arrays:
        return arrays["sound"]


@contextlib.contextmanager
def _arrays_of(path: Path) -> Iterator[Any]:
    try:
        with np.load(path) as arrays:
            yield arrays
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run the preparation again") from error


def kept_findings(destination: Path) -> set[str]:
    """The keys of the clips whose findings are there."""
    folder = destination / FINDINGS_NAME
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.npz")}


def is_made(wanted: WantedClip) -> bool:
    """Whether the clip's findings are there, whole, and of the same file."""
    try:
        return read_findings(wanted.findings_path, row_only=True).row["source"] == stated_row(wanted)["source"]
    except InputError:
        return False


def _new_findings(wanted: WantedClip, tools: Tools) -> Findings:
    """Hear, track, judge and crop one clip; it lasts as long as its picture, or its sound where that is shorter."""
    sound, unheard = _heard(wanted)
    try:
        with wanted.clip.picture.open() as picture:
            footage = Footage.open(picture).at(wanted.fps)
            unheard = unheard or _silence(sound, len(footage), wanted.fps)
            if not unheard:
                footage = footage[: round(len(sound) * wanted.fps / SAMPLE_RATE)]
            rejected = quality.length_verdict(len(footage))
            landmarks = np.empty(0) if rejected else track_landmarks(footage, tools.detector)
            rejected = rejected or quality.face_verdict(landmarks) or quality.crowd_verdict(footage, tools.detector)
            if rejected:
                return _rejected(wanted, rejected)
            landmarks, video, rejected = _crops(footage, fill_gaps(landmarks), wanted)
    except InputError as error:
        return _rejected(wanted, _unreadable(wanted, error))
    return _rejected(wanted, rejected) if rejected else _whole(wanted, landmarks, video, sound, unheard, tools)


def _crops(footage: Footage, landmarks: np.ndarray, wanted: WantedClip) -> tuple[np.ndarray, bytes, str]:
    """(F, 68, 2) picture pixels → the same in crop pixels, the crops as mp4, and why they are unusable."""
    crop = face_crop(landmarks, wanted.size)
    thumbnails = []

    def pictures() -> Iterator[np.ndarray]:
        for frame in footage:
            picture = crop.cut(frame)
            thumbnails.append(quality.thumbnail(picture))
            yield picture

    video = encode_video(pictures(), wanted.fps)
    return crop.to_crop(landmarks), video, quality.cut_verdict(thumbnails, float(wanted.fps))


def _known_findings(wanted: WantedClip, known: dict[str, Any], tools: Tools) -> Findings:
    """The findings of a clip that an earlier run prepared: crops and landmarks as they are, the sound read again.

    Where the shard does not give them back whole, the clip is prepared anew.
    """
    if known["rejected"]:
        return _rejected(wanted, known["rejected"])
    clip = PreparedClip(clip_info(known), wanted.destination)
    try:
        landmarks, video = clip.landmarks(), clip.member("video")
        clip.frames(len(landmarks) - 1, 1)
    except InputError:
        return _new_findings(wanted, tools)
    sound, unheard = _heard(wanted)
    unheard = unheard or _silence(sound, len(landmarks), wanted.fps)
    return _whole(wanted, landmarks, video, sound, unheard, tools)


def _silence(sound: np.ndarray, frames: int, fps: Fraction) -> str:
    """The verdict on what is heard of (samples,) int16 during so many frames."""
    return quality.sound_verdict(as_waveform(sound[: round(frames * SAMPLE_RATE / fps)]))


def _heard(wanted: WantedClip) -> tuple[np.ndarray, str]:
    """The sound (samples,) int16 of a clip, or why there is none."""
    try:
        with wanted.clip.sound.open() as path:
            return np.round(np.clip(read_waveform(path), -1, 1) * _FULL_SCALE).astype(np.int16), ""
    except InputError as error:
        return np.empty(0, np.int16), _unreadable(wanted, error)


def _whole(
    wanted: WantedClip, landmarks: np.ndarray, video: bytes, sound: np.ndarray, unheard: str, tools: Tools
) -> Findings:
    row = stated_row(wanted) | {"frames": len(landmarks), "duration_s": float(len(landmarks) / wanted.fps)}
    if unheard:
        return Findings(row | {"unheard": unheard}, landmarks, video, np.empty(0))
    heard = landmarks, as_waveform(sound), float(wanted.fps)
    return Findings(row, landmarks, video, sound, tools.lag.trace(*heard), tools.sync.trace(*heard))


def as_waveform(sound: np.ndarray) -> np.ndarray:
    """(samples,) int16 → float32 in [-1, 1]."""
    return sound.astype(np.float32) / _FULL_SCALE


def _unreadable(wanted: WantedClip, error: InputError) -> str:
    reason = " ".join(str(error).replace(f"{wanted.source}{os.sep}", "").split())
    return f"{quality.UNREADABLE}: {reason}"


def _rejected(wanted: WantedClip, reason: str) -> Findings:
    return Findings(stated_row(wanted) | {"rejected": reason}, np.empty(0), b"", np.empty(0))


def stated_row(wanted: WantedClip) -> dict[str, Any]:
    """A row of the index with what is known before the clip is opened."""
    clip = wanted.clip
    stated = {name: getattr(clip, name) for name in ("key", "corpus", "speaker", "emotion", "level", "split", "text")}
    place = {
        "source": clip.picture.inside(wanted.source),
        "fps": float(wanted.fps),
        "size": wanted.size,
    }
    return EMPTY_ROW | stated | place
