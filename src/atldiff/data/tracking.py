"""A clip's pictures and the 68 landmarks of the face in them."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from atldiff.errors import InputError
from atldiff.face.crop import detection_window
from atldiff.face.detection import FaceDetector
from atldiff.media.files import check_codec, existing_file, open_media
from atldiff.media.frames import rgb_picture

MAX_MISSING_SHARE = 0.1
"""A clip with a larger share of frames without a face is not used."""

_EXPECTED = "a video of a talking face"
_USUAL_FPS = 25.0


@dataclass(frozen=True)
class Footage:
    """Some of a video file's pictures in order, decoded anew at each reading and never held: no clip is too long.

    ``len()`` counts them, iterating gives each as (H, W, 3) uint8 RGB, as a player shows it, and slices are
    footage again.

    Attributes:
        times: (N,) seconds at which each picture of the file appears, the first at 0.
        fps: pictures per second of the file, on average.
        chosen: indices into ``times``, ascending; one may come up several times.
    """

    path: Path
    times: np.ndarray
    fps: float
    chosen: np.ndarray

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """All pictures of a file; it is decoded once to see when they appear.

        Raises:
            InputError: there is no such file, or no video can be read from it.
        """
        path = existing_file(path, _EXPECTED)
        with open_media(path, _EXPECTED) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no picture; expected {_EXPECTED}")
            stream = container.streams.video[0]
            check_codec(stream, str(path), _EXPECTED)
            fps = float(stream.average_rate or _USUAL_FPS)
        times = [
            index / fps if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
            for index, (frame, _) in enumerate(_decoded(path))
        ]
        if not times:
            raise InputError(f"{path} has no frame; expected {_EXPECTED}")
        return cls(path, np.maximum.accumulate(times) - times[0], fps, np.arange(len(times)))

    def at(self, fps: Fraction) -> Self:
        """Picture k is the file's picture that is nearest in time to k / fps, from its first to its last.

        The last one is taken to last as long as the average one.
        """
        duration = self.times[-1] + 1 / self.fps
        wanted = np.arange(max(1, round(duration * float(fps)))) / float(fps)
        between = (self.times[1:] + self.times[:-1]) / 2
        return dataclasses.replace(self, chosen=np.searchsorted(between, wanted - 1e-6))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, part: slice) -> Self:
        return dataclasses.replace(self, chosen=self.chosen[part])

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = enumerate(_decoded(self.path))
        position, shape, picture = -1, None, np.empty(0)
        for wanted in self.chosen:
            while position < wanted:
                position, (frame, stream) = next(frames)
                if position == wanted:
                    picture = rgb_picture(frame, stream)
            if shape not in (None, picture.shape):
                raise InputError(f"{self.path} changes its picture size from {shape} to {picture.shape}")
            shape = picture.shape
            yield picture


def _decoded(path: Path) -> Iterator[tuple[VideoFrame, VideoStream]]:
    with open_media(path, _EXPECTED) as container:
        stream = container.streams.video[0]
        try:
            for frame in container.decode(stream):
                yield frame, stream
        except FFmpegError as error:
            raise InputError(f"{path} cannot be decoded ({error}); expected {_EXPECTED}") from error


def read_frames(path: Path) -> tuple[np.ndarray, float]:
    """All frames of a clip: (F, H, W, 3) uint8 and frames per second.

    Raises:
        InputError: there is no such file, or no video can be read from it.
    """
    footage = Footage.open(path)
    return np.stack(list(footage)), footage.fps


def track_landmarks(frames: np.ndarray | Footage, detector: FaceDetector) -> np.ndarray:
    """Landmarks of the most prominent face in every frame, (F, 68, 2); NaN where none was seen.

    The face is looked for in one window that stays put, so that the landmarks do not tremble with it.
    """
    landmarks = np.full((len(frames), 68, 2), np.nan, dtype=np.float32)
    samples = frames[:: max(1, len(frames) // 5)]
    first = next((faces for faces in map(detector.detect, samples) if faces), None)
    if not first:
        return landmarks
    window = detection_window(first[0])
    for _ in range(2):
        for index, frame in enumerate(frames):
            faces = detector.detect_once(window.cut(frame))
            if faces:
                landmarks[index] = window.to_picture(max(faces, key=np.ptp))
        if missing_share(landmarks) <= MAX_MISSING_SHARE:
            break
        seen = landmarks[~np.isnan(landmarks).any(axis=(1, 2))]
        if not len(seen):
            break
        window = detection_window(np.median(seen, axis=0))
    return landmarks


def missing_share(landmarks: np.ndarray) -> float:
    """The share of frames, the first axis of (F, 68, 2), without a face."""
    return float(np.isnan(landmarks).any(axis=(1, 2)).mean())


def fill_gaps(landmarks: np.ndarray) -> np.ndarray:
    """Linear interpolation over the frames (first axis) that are NaN."""
    missing = np.isnan(landmarks).any(axis=(1, 2))
    if not missing.any():
        return landmarks
    filled = landmarks.copy()
    times = np.arange(len(landmarks))
    for point in np.ndindex(landmarks.shape[1:]):
        series = landmarks[(slice(None), *point)]
        filled[(missing, *point)] = np.interp(times[missing], times[~missing], series[~missing])
    return filled
