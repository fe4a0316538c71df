"""The one who is to speak: a portrait, read, with its face, at the size and in the shape of the video."""

import dataclasses
import hashlib
import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from atldiff.errors import FaceError, at_fault
from atldiff.face.kinds import covering
from atldiff.face.portrait import MIN_FACE_SIZE, Judge, load_portrait, select_face
from atldiff.media.framing import aspect_ratio, check_framing
from atldiff.media.pictures import reduced
from atldiff.options import DEFAULT_MAX_SIZE, FramingOptions, GenerationOptions

_SEEDS = 1_000_000
"""How many seeds there are to draw from: one can be typed."""

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class Sitter:
    """A portrait as it is animated.

    Attributes:
        picture: (H, W, 3) uint8.
        landmarks: (68, 2) of the face that is to speak, its pixels.
        read_size: (width, height) of the portrait as it was read.
        blinks: whether its eyes can be seen to.
    """

    picture: np.ndarray
    landmarks: np.ndarray
    read_size: tuple[int, int]
    blinks: bool

    def fitted_options(self, options: GenerationOptions, seed: int | None, *digests: str) -> GenerationOptions:
        """The options for this face: no blinks behind dark glasses, and a seed from the content where None is given.

        Args:
            digests: of what else the seed is drawn from.
        """
        if seed is None:
            content = hashlib.sha256(self.picture.tobytes())
            content.update("".join(digests).encode())
            seed = int.from_bytes(content.digest()[:8], "big") % _SEEDS
        return dataclasses.replace(options, seed=seed, blink=options.blink if self.blinks else "off")


def read_sitter(
    portrait: Any,
    detector: Judge,
    face: int | None = None,
    max_size: int | None = None,
    aspect: str | None = None,
    background: str | None = None,
) -> Sitter:
    """Read a portrait, see :meth:`~atldiff.pipeline.ATLDiffPipeline.stream` for the arguments.

    Raises:
        InputError: it cannot be read, or an argument cannot be used.
        FaceError: no usable face, or one that does not fit into the shape.
    """
    check_framing(face=face, max_size=max_size, aspect=aspect, background=background)
    shape = aspect_ratio(aspect)
    with at_fault("portrait"):
        picture = load_portrait(portrait, detector, background)
        landmarks, _ = select_face(picture, detector, face)
        height, width = picture.shape[:2]
        if shape is not None:
            picture, landmarks = _cut_to(picture, landmarks, shape, str(aspect))
    picture, landmarks = fit_size(picture, landmarks, max_size)
    return Sitter(picture, landmarks, (width, height), not covering(picture, landmarks).glasses)


def fit_size(picture: np.ndarray, landmarks: np.ndarray, max_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A portrait, (H, W, 3) uint8, and its landmarks, reduced to the size of the video.

    The longer side becomes at most ``max_size`` pixels (None: ``DEFAULT_MAX_SIZE``), but no smaller than leaves the
    face ``MIN_FACE_SIZE`` pixels, which is warned of.

    Raises:
        InputError: ``max_size`` is out of range.
    """
    FramingOptions(max_size=max_size)
    most, longest = max_size or DEFAULT_MAX_SIZE, max(picture.shape[:2])
    least = min(longest, math.ceil(longest * MIN_FACE_SIZE / float(np.ptp(landmarks, axis=0).max())))
    if least > most:
        _log.warning("the face is small: the video's longer side has %d pixels, not %d", least, most)
    small = np.array(reduced(Image.fromarray(picture), max(most, least)))
    scale = np.array(small.shape[1::-1]) / np.array(picture.shape[1::-1])
    return small, (landmarks * scale).astype(np.float32)


def _cut_to(picture: np.ndarray, landmarks: np.ndarray, aspect: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest part of the picture of that shape, around the face."""
    height, width = picture.shape[:2]
    size = np.array([min(width, round(height * aspect)), min(height, round(width / aspect))])
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    if np.any(high - low > size):
        raise FaceError(f"the face of {np.ptp(landmarks, axis=0).max():.0f} pixels does not fit into {name} of "
                        f"this portrait ({width}×{height}); expected more picture around it")  # fmt: skip
    corner = np.clip(np.round((low + high - size) / 2), 0, np.array([width, height]) - size).astype(int)
    left, top = corner
    return picture[top : top + size[1], left : left + size[0]], (landmarks - corner).astype(np.float32)
