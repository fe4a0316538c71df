"""Frames as videos hold them, luma and chroma apart: what is not changed stays as it is, to the last bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from atldiff.errors import InputError
from atldiff.media.colour import needs_conversion
from atldiff.media.frames import check_frame_size, turned, upright_picture

Box = tuple[int, int, int, int]
"""left, top, right, bottom in whole, even pixels; right and bottom are just outside."""

_UNSPECIFIED = 2
_RGB_SPACE = 0
_FULL_RANGE_FORMATS = ("yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p")
_EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
_HIGH_DEFINITION = 720


@dataclass(frozen=True)
class Colours:
    """What the numbers of a video mean, by ITU-T H.273.

    Attributes:
        space, primaries, transfer: 2 where the video says nothing.
        is_full: whether luma goes from 0 to 255, not from 16 to 235.
    """

    space: int = int(Colorspace.ITU709)
    primaries: int = 1
    transfer: int = 1
    is_full: bool = False

    @property
    def range(self) -> ColorRange:
        """Full or limited range, as PyAV names it."""
        return ColorRange.JPEG if self.is_full else ColorRange.MPEG

    def matrix(self, height: int) -> Colorspace:
        """Between RGB and this; where nothing is said, what is usual for frames of that height."""
        if self.space == _UNSPECIFIED:
            return Colorspace.ITU709 if height >= _HIGH_DEFINITION else Colorspace.ITU601
        known = {int(each): each for each in Colorspace}
        return known.get(self.space, Colorspace.ITU601)


@dataclass(frozen=True)
class Planes:
    """One upright picture of even sides, 8 bits, 4:2:0.

    Attributes:
        luma: (H, W) uint8.
        chroma: two of (H / 2, W / 2) uint8.
        colours: what they mean.
    """

    luma: np.ndarray
    chroma: tuple[np.ndarray, np.ndarray]
    colours: Colours

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream, matrix: np.ndarray | None) -> Self:
        """A decoded frame, turned as ``matrix`` says, see :func:`~atldiff.media.frames.display_matrix`; of an odd
        side the last column or row is left out.

        What screens and networks do not expect (high dynamic range, two fields in one frame, pixels that are not
        square, RGB) becomes usual BT.709.

        Raises:
            InputError: the frame is too large, or its pixels are of a kind that is not read.
        """
        check_frame_size(frame.width, frame.height)
        if _is_unusual(frame, stream):
            return cls.of_rgb(upright_picture(frame, stream, matrix), Colours())
        is_full = frame.color_range == ColorRange.JPEG or frame.format.name in _FULL_RANGE_FORMATS
        colours = Colours(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), is_full)
        planes = [turned(plane, matrix) for plane in _planes(frame, colours)]
        return cls._even(planes, colours)

    @classmethod
    def of_rgb(cls, picture: np.ndarray, colours: Colours) -> Self:
        """(H, W, 3) uint8 RGB."""
        even = np.ascontiguousarray(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2])
        frame = VideoFrame.from_ndarray(even, format="rgb24")
        made = _reformatted(frame, "yuv420p", None, colours)
        return cls._even(_planes(made, colours), colours)

    @classmethod
    def _even(cls, planes: Sequence[np.ndarray], colours: Colours) -> Self:
        height, width = (side // 2 for side in planes[0].shape)
        luma = np.ascontiguousarray(planes[0][: 2 * height, : 2 * width])
        first, second = (np.ascontiguousarray(plane[:height, :width]) for plane in planes[1:])
        return cls(luma, (first, second), colours)

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.luma.shape[1]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.luma.shape[0]

    def to_frame(self) -> VideoFrame:
        """For an encoder."""
        whole = np.concatenate([self.luma.reshape(-1), *(plane.reshape(-1) for plane in self.chroma)])
        return VideoFrame.from_ndarray(whole.reshape(self.height * 3 // 2, self.width), format="yuv420p")

    def rgb(self, box: Box | None = None, longest: int | None = None) -> np.ndarray:
        """The picture, or what lies in ``box``, (h, w, 3) uint8 RGB; its longer side at most ``longest`` pixels."""
        part = self if box is None else self._part(box)
        width, height = part.width, part.height
        if longest is not None and max(width, height) > longest:
            share = longest / max(width, height)
            width, height = max(2, round(width * share)), max(2, round(height * share))
        return _reformatted(part.to_frame(), "rgb24", self.colours, None, self.height, width, height).to_ndarray()

    def box_around(self, low: np.ndarray, high: np.ndarray) -> Box:
        """The part of the picture that holds a rectangle, 2 pixels a side at least."""
        most = np.array([self.width, self.height])
        first = np.clip(np.floor(low / 2) * 2, 0, most - 2).astype(int)
        last = np.clip(np.ceil(high / 2) * 2, first + 2, most).astype(int)
        return int(first[0]), int(first[1]), int(last[0]), int(last[1])

    def with_rgb(self, box: Box, picture: np.ndarray, changed: np.ndarray | None = None) -> "Planes":
        """A copy with other pixels in ``box``.

        Args:
            picture: (h, w, 3) uint8 RGB.
            changed: (h, w) bool, which of them; all if None.
        """
        made = Planes.of_rgb(picture, replace(self.colours, space=int(self.colours.matrix(self.height))))
        where = np.ones(made.luma.shape, dtype=bool) if changed is None else changed
        quarter = np.asarray(where.reshape(made.height // 2, 2, made.width // 2, 2).any(axis=(1, 3)))
        left, top, right, bottom = box
        rows, columns = slice(top, bottom), slice(left, right)
        half_rows, half_columns = slice(top // 2, bottom // 2), slice(left // 2, right // 2)
        luma = _with(self.luma, (rows, columns), made.luma, where)
        first, second = (
            _with(old, (half_rows, half_columns), new, quarter)
            for old, new in zip(self.chroma, made.chroma, strict=True)
        )
        return Planes(luma, (first, second), self.colours)

    def _part(self, box: Box) -> "Planes":
        left, top, right, bottom = box
        first, second = (plane[top // 2 : bottom // 2, left // 2 : right // 2] for plane in self.chroma)
        return replace(self, luma=self.luma[top:bottom, left:right], chroma=(first, second))


def _with(plane: np.ndarray, part: tuple[slice, slice], made: np.ndarray, where: np.ndarray) -> np.ndarray:
    copy = plane.copy()
    copy[part][where] = made[where]
    return copy


def _is_unusual(frame: VideoFrame, stream: VideoStream) -> bool:
    aspect = stream.sample_aspect_ratio
    is_squeezed = bool(aspect) and aspect != 1
    is_rgb = frame.format.is_rgb or int(frame.colorspace) == _RGB_SPACE or "pal" in frame.format.name
    is_hdr = needs_conversion(frame.color_trc, frame.color_primaries)
    return is_squeezed or is_rgb or is_hdr or frame.interlaced_frame


def _planes(frame: VideoFrame, colours: Colours) -> list[np.ndarray]:
    """Luma and the two chroma planes of a frame, 8-bit 4:2:0."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        try:
            frame = _reformatted(frame, "yuv420p", colours, colours)
        except (FFmpegError, ValueError) as error:
            raise InputError(
                f"a frame of {frame.format.name} cannot be read; expected a usual kind of video"
            ) from error
    return [_array(plane) for plane in frame.planes]


def _array(plane: VideoPlane) -> np.ndarray:
    """A copy: what is held of a decoder's frame keeps the whole of it from being used again."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width].copy()


def _reformatted(
    frame: VideoFrame,
    format: str,
    source: Colours | None,
    target: Colours | None,
    height: int | None = None,
    new_width: int | None = None,
    new_height: int | None = None,
) -> VideoFrame:
    """Between RGB (None) and what ``Colours`` say."""
    tall = height or frame.height
    meaning = source or target or Colours()
    matrix = meaning.matrix(tall)
    return VideoReformatter().reformat(
        frame,
        width=new_width,
        height=new_height,
        format=format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=source.range if source else ColorRange.JPEG,
        dst_color_range=target.range if target else ColorRange.JPEG,
        interpolation=_EXACT,
        threads=1,
    )
