"""Portraits of any kind → one RGB picture, and the face in it that is to speak."""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

from atldiff.errors import FaceError, InputError
from atldiff.face.kinds import LEAST_HUMAN, covering
from atldiff.face.prepared import PreparedPortrait, prepared
from atldiff.face.topology import JAW, LEFT_EYE, MOUTH, NOSE_TIP, OUTER_EYE_CORNERS, RIGHT_EYE, mouth_opening
from atldiff.media.files import check_codec, existing_file, open_media
from atldiff.media.forms import content_of, local_path, plain_array
from atldiff.media.frames import check_frame_size, rgb_picture
from atldiff.media.pictures import EXPECTED, UNREADABLE, as_rgb, check_background, from_array, open_picture, reduced

MAX_SIDE = 4096
"""Longest side in pixels at which a portrait is read; larger ones are reduced to it."""

MIN_FACE_SIZE = 48
"""Smallest usable face in pixels, along the longer side of its landmarks' bounding box."""

FRONTAL = (0.35, 0.65)
"""Where the tip of the nose lies between the outer eye corners (0 and 1) of a face that is not turned too far."""

MOST_OPEN = 0.19
"""Mouth opening, in eye distances, of a portrait whose mouth is wide open."""

VIDEO_SEARCH_TIMES_S = (0.0, 0.2, 0.5, *(float(second) for second in range(1, 11)))
"""When a video is searched for a face, in seconds from its start; of a shorter one the last frame too."""

VIDEO_SEARCH_PIXELS = 600_000_000
"""Pixels of a video that are decoded in search of a face: ten seconds of full HD at 29 frames per second."""

VIDEO_SEARCH_SIDE = 1024
"""Longest side in pixels at which a frame is searched; the detector reduces every part it looks at to less."""

SEVERAL_FACES = "faces found; taking the largest"
"""What is said where nobody chose one of several."""

_log = logging.getLogger("atldiff")


class Detector(Protocol):
    """What this module needs of :class:`atldiff.face.detection.FaceDetector`."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB → (68, 2) pixel coordinates for each face, the largest first."""
        ...


class Judge(Detector, Protocol):
    """A detector that also tells people from other creatures."""

    def likeness(self, image: np.ndarray, landmarks: np.ndarray) -> float:
        """How sure it is that the face with these landmarks, (68, 2), is a human one, 0 to 1."""
        ...


def load_portrait(source: Any, detector: Detector | None = None, background: str | None = None) -> np.ndarray:
    """A portrait as (H, W, 3) uint8 RGB.

    Files are turned as their EXIF data says and converted to sRGB where they carry another colour profile; of an
    animation the first frame is taken, or with a detector the first with a face. A longer side above ``MAX_SIDE`` is
    reduced to it, with a warning.

    Args:
        source: a path, the bytes of a file or an open one, a Pillow picture, or an array or tensor: (H, W), (H, W, 3)
            or (H, W, 4), a tensor also (3, H, W); uint8, uint16, or floats in [0, 1].
        detector: with it a file may also be a video, see :func:`portrait_from_video`.
        background: what shows through where the picture is transparent: a colour by name or ``#rrggbb``, ``blur``
            (the picture itself, out of focus) or ``keep`` (the colours that lie hidden there); mid-grey if None.

    Raises:
        InputError: missing, a folder, empty, no picture, truncated, too large, or an array of another kind.
        FaceError: a video without a face.
    """
    check_background(background)
    if isinstance(source, Image.Image):
        return as_rgb(source, "the portrait", MAX_SIDE, background)
    if isinstance(source, str | os.PathLike):
        path = existing_file(local_path(source, EXPECTED), EXPECTED)
        return _load_file(path, str(path), detector, background)
    if (content := content_of(source)) is not None:
        if not content:
            raise InputError(f"the portrait is empty; expected {EXPECTED}")
        return _load_file(content, "the portrait", detector, background)
    if (array := plain_array(source)) is not None:
        return as_rgb(from_array(array), "the portrait array", MAX_SIDE, background)
    raise InputError(f"got {type(source).__name__} as portrait; expected a path, bytes, a PIL.Image or an array")


def _load_file(source: Path | bytes, name: str, detector: Detector | None, background: str | None) -> np.ndarray:
    try:
        with open_picture(source, name) as picture:
            if detector is not None:
                _seek_face(picture, detector)
            return as_rgb(picture, name, MAX_SIDE, background)
    except UnidentifiedImageError as error:
        if detector is None:
            raise InputError(f"{name} cannot be read as a picture; expected {EXPECTED}") from error
    return portrait_from_video(source, detector, name)


def prepare_portrait(
    source: Any, detector: Callable[[], Judge], number: int | None = None, background: str | None = None
) -> PreparedPortrait:
    """A portrait and the face in it that is to speak.

    Args:
        source: as for :func:`load_portrait`, or a prepared portrait, which has one face.
        detector: makes the detector, where one is needed.
        number: see :func:`select_face`.
        background: see :func:`load_portrait`.

    Raises:
        InputError, FaceError: see :func:`load_portrait` and :func:`select_face`.
    """
    known = prepared(source)
    finder = known or detector()
    picture = known.picture if known else load_portrait(source, finder, background)
    return PreparedPortrait(picture, select_face(picture, finder, number)[0])


def _seek_face(picture: Image.Image, detector: Detector) -> None:
    """Go to the first frame of an animation with a face in it; back to the first where there is none."""
    frames = min(getattr(picture, "n_frames", 1), len(VIDEO_SEARCH_TIMES_S))
    if frames < 2 or picture.format not in ("GIF", "PNG", "WEBP", "AVIF"):
        return
    with contextlib.suppress(Exception):  # what is broken there is reported where the first frame is read
        for number in range(frames):
            picture.seek(number)
            small = reduced(picture.convert("RGB"), VIDEO_SEARCH_SIDE)
            if detector.detect(np.array(small)):
                return
    picture.seek(0)


def portrait_from_video(source: str | Path | bytes, detector: Detector, name: str = "") -> np.ndarray:
    """The first frame with a face of a video, (H, W, 3) uint8 RGB, as a player shows it.

    The frames at ``VIDEO_SEARCH_TIMES_S`` are looked at, reduced to ``VIDEO_SEARCH_SIDE``, until
    ``VIDEO_SEARCH_PIXELS`` have been decoded.

    Raises:
        InputError: missing, a folder, empty or no video.
        FaceError: no face in these frames.
    """
    content = source if isinstance(source, bytes) else existing_file(source, EXPECTED)
    name = name or str(content)
    seen = 0
    for picture in _pictures_to_search(content, name):
        seen += 1
        whole = Image.fromarray(picture)
        if detector.detect(np.array(reduced(whole, VIDEO_SEARCH_SIDE))):
            return as_rgb(whole, name, MAX_SIDE)
    if not seen:
        raise InputError(f"{name} {UNREADABLE}")
    looks = "1 frame" if seen == 1 else f"{seen} frames"
    until = f"the first {VIDEO_SEARCH_TIMES_S[-1]:g} s"
    raise FaceError(f"no face in {looks} from {until} of {name}; expected a face towards the camera")


def _pictures_to_search(source: Path | bytes, name: str) -> Iterator[np.ndarray]:
    with contextlib.ExitStack() as stack:
        try:
            container = stack.enter_context(open_media(source, EXPECTED, name))
        except InputError as error:
            raise InputError(f"{name} {UNREADABLE}") from error
        if not container.streams.video:
            raise InputError(f"{name} has no picture; expected {EXPECTED}")
        stream = container.streams.video[0]
        check_codec(stream, name, EXPECTED)
        check_frame_size(stream.width, stream.height)
        due = deque(VIDEO_SEARCH_TIMES_S)
        start, decoded, passed_over = None, 0, None
        with contextlib.suppress(FFmpegError):
            for frame in container.decode(stream):
                start = frame.time or 0.0 if start is None else start
                passed = (frame.time or 0.0) - start + 1e-3
                decoded += frame.width * frame.height
                passed_over = frame
                if passed >= due[0]:
                    while due and passed >= due[0]:
                        due.popleft()
                    passed_over = None
                    yield rgb_picture(frame, stream)
                if not due or decoded > VIDEO_SEARCH_PIXELS:
                    return
        if passed_over is not None:
            yield rgb_picture(passed_over, stream)


def select_face(
    image: np.ndarray, detector: Judge, number: int | None = None, minimum: float = MIN_FACE_SIZE
) -> tuple[np.ndarray, int]:
    """The face that is to speak, and how many there are. What will not look right is warned of.

    Args:
        image: (H, W, 3) uint8 RGB.
        detector: finds the faces.
        number: which face, counted from 1 at the left of the picture; None takes the largest.
        minimum: smallest longer side in pixels of the bounding box of the face's landmarks.

    Returns:
        (68, 2) float32 landmarks in pixels, and the number of faces found.

    Raises:
        FaceError: no face, no face of that number, one that is too small, or one whose mouth is not in the picture.
    """
    faces = detector.detect(image)
    if not faces:
        height, width = image.shape[:2]
        raise FaceError(f"no face found in the portrait ({width}×{height}); expected a face towards the camera")
    if number is None:
        face = faces[0]
        if len(faces) > 1:
            _log.info("%d %s (choose with --face N)", len(faces), SEVERAL_FACES)
    else:
        if not 1 <= number <= len(faces):
            found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
            raise FaceError(
                f"no face number {number}: {found} found; expected 1 to {len(faces)}, counted from the left"
            )
        face = sorted(faces, key=lambda points: points[:, 0].min() + points[:, 0].max())[number - 1]
    size = float((face.max(axis=0) - face.min(axis=0)).max())
    if size < minimum:
        raise FaceError(f"the face is {size:.0f} pixels large; expected at least {minimum:g}")
    _check_inside(face, image)
    _warn_of_pose(face)
    _warn_of_kind(image, face, detector)
    return face, len(faces)


def _check_inside(face: np.ndarray, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    outside = np.any((face < 0) | (face > (width, height)), axis=1)
    if outside[MOUTH].any():
        raise FaceError(f"the face's mouth reaches beyond the picture ({width}×{height}); expected a whole mouth")
    if outside[RIGHT_EYE].any() or outside[LEFT_EYE].any():
        raise FaceError(f"the face's eyes reach beyond the picture ({width}×{height}); expected both eyes whole")
    if outside[JAW].any():
        _log.warning("the face reaches beyond the picture; what is missing is made up from the picture's edge")


def _warn_of_pose(face: np.ndarray) -> None:
    """Tell of what the training clips hardly had: heads turned aside and portraits with a wide open mouth."""
    right, left = face[list(OUTER_EYE_CORNERS)]
    across = left - right
    place = float((face[NOSE_TIP] - right) @ across / max(float(across @ across), 1e-6))
    if not FRONTAL[0] <= place <= FRONTAL[1]:
        _log.warning("the head is turned aside; faces towards the camera give better videos")
    if mouth_opening(face[None])[0] > MOST_OPEN:
        _log.warning("the portrait's mouth is wide open; a closed mouth gives better videos")


def _warn_of_kind(image: np.ndarray, face: np.ndarray, detector: Judge) -> None:
    """Tell of what the model was not made for: covered faces, and those of animals and things."""
    covered = covering(image, face)
    if covered.glasses:
        _log.warning("the eyes are behind dark glasses: they do not blink")
    if covered.mask:
        _log.warning("the mouth seems to be covered, and will be drawn on what covers it; a bare face is expected")
    if not (covered.glasses or covered.mask) and (score := detector.likeness(image, face)) < LEAST_HUMAN:
        _log.warning("this does not look like a human face (%.2f; people have 0.87 and more)", score)
