"""Portraits of any kind → one RGB picture, and the face in it that is to speak."""

import contextlib
import io
import logging
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from atldiff.errors import FaceError, InputError
from atldiff.face.topology import JAW, MOUTH, NOSE_TIP, OUTER_EYE_CORNERS, mouth_opening
from atldiff.media import existing_file, open_media

MAX_SIDE = 4096
"""Longest side in pixels of a portrait; larger ones are reduced to it."""

MIN_FACE_SIZE = 48
"""Smallest usable face in pixels, along the longer side of its landmarks' bounding box."""

FRONTAL = (0.35, 0.65)
"""Where the tip of the nose lies between the outer eye corners (0 and 1) of a face that is not turned too far."""

MOST_OPEN = 0.19
"""Mouth opening, in eye distances, of a portrait whose mouth is wide open."""

BACKGROUND = (128, 128, 128)
"""What shows through where a picture is transparent: a neutral mid-grey."""

VIDEO_SEARCH_TIMES_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""When a video is searched for a face, in seconds from its start."""

VIDEO_SEARCH_PIXELS = 600_000_000
"""Pixels of a video that are decoded in search of a face: ten seconds of full HD at 29 frames per second."""

VIDEO_SEARCH_SIDE = 1024
"""Longest side in pixels at which a frame is searched; the detector reduces every part it looks at to less."""

_EXPECTED = "a picture (JPEG, PNG, WebP, AVIF …) or a video of a face"
_DAMAGED = "is damaged or incomplete"
_UNREADABLE = f"cannot be read as a picture or video; expected {_EXPECTED}"
_UNSAFE_FORMATS = {"EPS", "MPEG"}
"""Formats that Pillow names but cannot decode itself: one runs Ghostscript, the other is a video."""

_log = logging.getLogger("atldiff")


class Detector(Protocol):
    """What this module needs of :class:`atldiff.face.detection.FaceDetector`."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB → (68, 2) pixel coordinates for each face, the largest first."""
        ...


def load_portrait(source: str | Path | Image.Image | np.ndarray, detector: Detector | None = None) -> np.ndarray:
    """A portrait as (H, W, 3) uint8 RGB.

    Files are turned as their EXIF data says, converted to sRGB where they carry another colour profile,
    transparency is laid on mid-grey, of an animation the first frame is taken, and a longer side above
    ``MAX_SIDE`` is reduced to it, with a warning.

    Args:
        source: a file, a Pillow picture, or an array (H, W), (H, W, 3) or (H, W, 4) uint8.
        detector: with it a file may also be a video, see :func:`portrait_from_video`.

    Raises:
        InputError: missing, a folder, empty, no picture, truncated, too large, or an array of another kind.
        FaceError: a video without a face.
    """
    if isinstance(source, np.ndarray):
        _check_array(source)
        return _as_rgb(Image.fromarray(np.ascontiguousarray(source)), "the portrait array")
    if isinstance(source, Image.Image):
        return _as_rgb(source, "the portrait")
    if not isinstance(source, str | Path):
        raise InputError(f"got {type(source).__name__} as portrait; expected a path, a PIL.Image or an array")
    path = existing_file(source, _EXPECTED)
    try:
        with path.open("rb") as stream, _open_picture(stream, path) as picture:
            return _as_rgb(picture, str(path))
    except UnidentifiedImageError as error:
        if detector is None:
            raise InputError(f"{path} cannot be read as a picture; expected {_EXPECTED}") from error
    except OSError as error:
        what = f"cannot be read ({error.strerror})" if error.strerror else _DAMAGED
        raise InputError(f"{path} {what}; expected {_EXPECTED}") from error
    return portrait_from_video(path, detector)


def portrait_from_video(path: str | Path, detector: Detector) -> np.ndarray:
    """The first frame with a face of a video, (H, W, 3) uint8 RGB, upright.

    The frames at ``VIDEO_SEARCH_TIMES_S`` are looked at, reduced to ``VIDEO_SEARCH_SIDE``, until
    ``VIDEO_SEARCH_PIXELS`` have been decoded.

    Raises:
        InputError: missing, a folder, empty or no video.
        FaceError: no face in these frames.
    """
    path = existing_file(path, _EXPECTED)
    seen = 0
    for frame in _frames_to_search(path):
        seen += 1
        picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        whole = Image.fromarray(np.ascontiguousarray(picture))
        if detector.detect(np.array(_reduced(whole, VIDEO_SEARCH_SIDE))):
            return _as_rgb(whole, str(path))
    if not seen:
        raise InputError(f"{path} {_UNREADABLE}")
    looks = "1 frame" if seen == 1 else f"{seen} frames"
    until = f"the first {VIDEO_SEARCH_TIMES_S[-1]:g} s"
    raise FaceError(f"no face in {looks} from {until} of {path}; expected a face towards the camera")


def select_face(
    image: np.ndarray, detector: Detector, number: int | None = None, minimum: float = MIN_FACE_SIZE
) -> tuple[np.ndarray, int]:
    """The face that is to speak, and how many there are.

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
            _log.info("%d faces found; taking the largest (choose with --face N)", len(faces))
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
    return face, len(faces)


def _check_inside(face: np.ndarray, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    outside = np.any((face < 0) | (face > (width, height)), axis=1)
    if outside[MOUTH].any():
        raise FaceError(f"the face's mouth reaches beyond the picture ({width}×{height}); expected a whole mouth")
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


def _check_array(array: np.ndarray) -> None:
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (grey or colour) or not array.size:
        raise InputError(
            f"the portrait array is {array.shape} {array.dtype}; expected (H, W), (H, W, 3) or (H, W, 4) uint8"
        )


def _open_picture(stream: io.BufferedReader, path: Path) -> Image.Image:
    """Open lazily. Pillow's own limit on the number of pixels holds; its warning at half of it is not shown.

    Raises:
        UnidentifiedImageError: not a picture.
        InputError: more pixels than the limit.
    """
    Image.init()
    formats = [name for name in Image.ID if name not in _UNSAFE_FORMATS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(stream, formats=formats)
        except Image.DecompressionBombError as error:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
            raise InputError(f"{path} has too many pixels; expected at most {limit:.0f} megapixels") from error
        except ValueError as error:
            raise InputError(f"{path} cannot be read as a picture; expected {_EXPECTED}") from error


def _as_rgb(picture: Image.Image, name: str) -> np.ndarray:
    if not all(picture.size):
        raise InputError(f"{name} is {picture.width}×{picture.height} pixels; expected at least 1×1")
    try:
        picture = ImageOps.exif_transpose(picture)
        picture = _to_srgb(_eight_bit(picture))
    except Exception as error:  # Pillow's decoders raise errors of any type on broken data
        raise InputError(f"{name} {_DAMAGED}; expected {_EXPECTED}") from error
    reduced = _reduced(picture, MAX_SIDE)
    if reduced.size != picture.size:
        _log.warning("%s is %d×%d pixels; reduced to %d×%d", name, *picture.size, *reduced.size)
    return np.array(reduced)


def _reduced(picture: Image.Image, longest: int) -> Image.Image:
    shrink = longest / max(picture.size)
    if shrink >= 1:
        return picture
    size = max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Pictures of 16 or 32 bits a pixel → 8-bit grey; all others as they are."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64) / 257
    elif picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
        values *= 255 if values.max() <= 1 else 1
    else:
        return picture
    return Image.fromarray(np.round(values).clip(0, 255).astype(np.uint8))


def _to_srgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        flat = Image.new("RGB", picture.size, BACKGROUND)
        flat.paste(picture, mask=picture.getchannel("A"))
        picture = flat
    if profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return picture.convert("RGB")


def _frames_to_search(path: Path) -> Iterator[VideoFrame]:
    with contextlib.ExitStack() as stack:
        try:
            container = stack.enter_context(open_media(path, _EXPECTED))
        except InputError as error:
            raise InputError(f"{path} {_UNREADABLE}") from error
        if not container.streams.video:
            raise InputError(f"{path} has no picture; expected {_EXPECTED}")
        due = deque(VIDEO_SEARCH_TIMES_S)
        start, decoded = None, 0
        with contextlib.suppress(FFmpegError):
            for frame in container.decode(container.streams.video[0]):
                start = frame.time or 0.0 if start is None else start
                passed = (frame.time or 0.0) - start + 1e-3
                decoded += frame.width * frame.height
                if passed >= due[0]:
                    while due and passed >= due[0]:
                        due.popleft()
                    yield frame
                if not due or decoded > VIDEO_SEARCH_PIXELS:
                    return
