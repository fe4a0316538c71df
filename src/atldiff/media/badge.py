"""The visible mark: a small label in the top right corner of every frame."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from atldiff.errors import InputError
from atldiff.media.planes import Planes

TEXTS = ("AI-generated", "AI")
"""The longest that takes at most half of the width is shown."""

_HEIGHT_SHARE = 0.045
"""Size of the letters over the frame's shorter side."""

_SMALLEST_TEXT = 13
"""Pixels that letters have at least."""

_BOX_OPACITY = 0.75
"""Of the dark box under the letters."""


class Badge:
    """White letters on a dark box, their size 1/22 of the frame's shorter side and at least 13 pixels.

    Raises:
        InputError: the frame has no room for the smallest badge.
    """

    def __init__(self, width: int, height: int) -> None:
        size = max(_SMALLEST_TEXT, round(min(width, height) * _HEIGHT_SHARE))
        label = next((label for text in TEXTS if 2 * (label := _label(text, size)).width <= width), None)
        margin = size // 3
        if label is None or 2 * (label.height + margin) > height:
            raise InputError(f"frames of {width}×{height} pixels are too small for a badge; expected at least 64×48")
        self.left, self.top = width - label.width - margin, margin
        letters = np.asarray(label, dtype=np.float32)[..., None] / 255
        self._kept = (1 - letters) * (1 - _BOX_OPACITY)
        self._added = letters * 255

    def draw(self, frame: np.ndarray) -> np.ndarray:
        """A copy of an (H, W, 3) uint8 RGB frame with the badge on it."""
        return self._drawn(frame, 0, 0)

    def draw_on(self, planes: Planes) -> Planes:
        """A copy of a frame with the badge on it."""
        height, width = self._kept.shape[:2]
        low, high = np.array([self.left, self.top]), np.array([self.left + width, self.top + height])
        box = planes.box_around(low, high)
        return planes.with_rgb(box, self._drawn(planes.rgb(box), box[0], box[1]))

    def _drawn(self, part: np.ndarray, left: int, top: int) -> np.ndarray:
        """A copy of the part of a frame that begins there."""
        marked = part.copy()
        height, width = self._kept.shape[:2]
        first_row, first_column = self.top - top, self.left - left
        box = marked[first_row : first_row + height, first_column : first_column + width]
        box[:] = np.rint(box * self._kept + self._added).astype(np.uint8)
        return marked


def _label(text: str, size: int) -> Image.Image:
    """How much of each pixel of the box is letter, 0 to 255."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    space = size // 3
    label = Image.new("L", (round(right - left) + 2 * space, round(bottom - top) + 2 * space))
    ImageDraw.Draw(label).text((space - left, space - top), text, fill=255, font=font)
    return label
