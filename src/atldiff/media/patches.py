"""Pictures of which little changes: what differs from the first of them is all that is kept, and converted."""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

_MARGIN = 16
"""How many pixels around a change are converted with it, so that what a pixel's neighbours add to it is right."""

_WHOLE_FROM = 0.5
"""Share of the picture from which on the whole of it is converted."""


@dataclass(frozen=True)
class Patch:
    """A part of a picture; all else is as in the first one.

    Attributes:
        left, top: where it lies, even.
        pixels: (h, w, 3) uint8 RGB, even sides.
    """

    left: int
    top: int
    pixels: np.ndarray


class Patches:
    """Cuts pictures of one size, (H, W, 3) uint8 RGB of even sides, to what changes in them.

    The part only grows, so that those who work on it seldom see another size.
    """

    def __init__(self) -> None:
        self._rows: np.ndarray | None = None
        self._low, self._high = np.zeros(2, dtype=int), np.zeros(2, dtype=int)

    def cut(self, picture: np.ndarray) -> Patch:
        """What differs from the first picture, and some pixels around it; of the first one, all."""
        if self._rows is None:
            first = picture.copy()
            self._rows = first.reshape(len(first), -1)
            return Patch(0, 0, first)
        self._take_in(picture)
        (left, top), (right, bottom) = self._low, self._high
        return Patch(int(left), int(top), picture[top:bottom, left:right].copy())

    def _take_in(self, picture: np.ndarray) -> None:
        """Let the part hold what differs in this picture, with a margin where it has to grow for that."""
        low, high = self._difference(picture)
        is_begun = bool(self._high.any())
        if is_begun and (low >= self._low + _MARGIN).all() and (high <= self._high - _MARGIN).all():
            return
        size = np.array(picture.shape[1::-1])
        low, high = (low - _MARGIN).clip(0) // 2 * 2, (-(-(high + _MARGIN) // 2) * 2).clip(None, size)
        if is_begun:
            low, high = np.minimum(low, self._low), np.maximum(high, self._high)
        if np.prod(high - low) > _WHOLE_FROM * np.prod(size):
            low, high = np.zeros(2, dtype=int), size
        self._low, self._high = low, high

    def _difference(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners (x, y) of what differs from the first picture, to some bytes; a pixel where nothing does."""
        assert self._rows is not None
        height, width = picture.shape[:2]
        word = max(size for size in (8, 4, 2) if 3 * width % size == 0)
        rows = np.ascontiguousarray(picture.reshape(height, -1))
        changed = rows.view(f"u{word}") != self._rows.view(f"u{word}")
        down, across = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
        if not len(down):
            return np.zeros(2, dtype=int), np.ones(2, dtype=int)
        low = np.array([word * across[0] // 3, down[0]])
        return low, np.array([word * (across[-1] + 1) // 3 + 1, down[-1] + 1])


class PatchConverter:
    """Makes 4:2:0 frames, BT.709 of limited range, of patches, the first of which is a whole picture."""

    def __init__(self, pixel_format: str) -> None:
        self._format = pixel_format
        self._reformatter = VideoReformatter()
        self._planes: list[np.ndarray] = []

    def frame(self, patch: Patch) -> VideoFrame:
        """The whole picture."""
        made = self._converted(patch.pixels)
        if not self._planes:
            self._planes = [plane.copy() for plane in _planes(made)]
            return made
        height, width = self._planes[0].shape
        if patch.pixels.shape[:2] == (height, width):
            return made
        frame = VideoFrame(width, height, self._format)
        for whole, first, part in zip(_planes(frame), self._planes, _planes(made), strict=True):
            shrink = height // len(first)
            whole[:] = first
            self._lay(whole, part, patch.left // shrink, patch.top // shrink, _MARGIN // 2 // shrink)
        return frame

    def _converted(self, pixels: np.ndarray) -> VideoFrame:
        return self._reformatter.reformat(
            VideoFrame.from_ndarray(pixels, format="rgb24"),
            format=self._format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )

    @staticmethod
    def _lay(whole: np.ndarray, part: np.ndarray, left: int, top: int, margin: int) -> None:
        """Put a part where it lies, without the ``margin`` at those of its borders that are not the picture's."""
        height, width = part.shape
        first_row, first_column = (margin if start else 0 for start in (top, left))
        last_row = height - (margin if top + height < len(whole) else 0)
        last_column = width - (margin if left + width < whole.shape[1] else 0)
        kept = part[first_row:last_row, first_column:last_column]
        whole[top + first_row : top + last_row, left + first_column : left + last_column] = kept


def _planes(frame: VideoFrame) -> list[np.ndarray]:
    """The frame's own luma and chroma, to be read and written."""
    rows = [np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
    return [row[: plane.height, : plane.width] for row, plane in zip(rows, frame.planes, strict=True)]
