"""Frames of a video → RGB pictures as a player shows them: upright, unmirrored, unsqueezed, no fields, no HDR."""

from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image

from atldiff.errors import InputError
from atldiff.media.colour import BT2020, HLG, PQ, needs_conversion, to_srgb

MAX_FRAME_PIXELS = 80_000_000
"""Pixels of a frame at most: more than 8K video has."""

_WIDEST_PIXEL = 4
"""Pixels that claim to be wider, or higher, than so many times the other side are taken for square."""

_COMBED_ABOVE = 1.25
"""Rows that differ from the next by so many times more than from the one after it are of two moments."""


def rgb_picture(frame: VideoFrame, stream: VideoStream) -> np.ndarray:
    """A frame of a stream as (H, W, 3) uint8 sRGB, as a player shows it.

    Raises:
        InputError: the frame is too large, or its pixels are of a kind that is not read.
    """
    return upright_picture(frame, stream, display_matrix(frame))


def upright_picture(frame: VideoFrame, stream: VideoStream, matrix: np.ndarray | None) -> np.ndarray:
    """:func:`rgb_picture` for a matrix that is known, see :func:`display_matrix`."""
    check_frame_size(frame.width, frame.height)
    try:
        picture = _rgb(frame)
    except (FFmpegError, ValueError) as error:
        raise InputError(f"a frame of {frame.format.name} cannot be read; expected a usual kind of video") from error
    if frame.interlaced_frame:
        picture = _without_fields(picture)
    return np.ascontiguousarray(turned(_unsqueezed(picture, stream.sample_aspect_ratio), matrix))


def check_frame_size(width: int, height: int) -> None:
    """Raise InputError for frames of more than ``MAX_FRAME_PIXELS``."""
    if width * height > MAX_FRAME_PIXELS:
        raise InputError(
            f"the video's frames have {width}×{height} pixels; expected at most {MAX_FRAME_PIXELS / 1e6:g} megapixels"
        )


def _rgb(frame: VideoFrame) -> np.ndarray:
    if not needs_conversion(frame.color_trc, frame.color_primaries):
        return frame.to_ndarray(format="rgb24")
    is_wide = frame.color_trc in (PQ, HLG) or frame.color_primaries == BT2020
    deep = frame.reformat(format="rgb48le", src_colorspace=Colorspace.BT2020 if is_wide else None)
    return to_srgb(deep.to_ndarray(), frame.color_trc, frame.color_primaries)


def _without_fields(picture: np.ndarray) -> np.ndarray:
    """The picture with every second row made from its neighbours, where the rows are of two moments."""
    rows = picture.mean(axis=2, dtype=np.float32)
    if len(rows) < 4:
        return picture
    next_row, same_field = (np.abs(rows[step:] - rows[:-step]).mean() for step in (1, 2))
    if next_row <= _COMBED_ABOVE * same_field:
        return picture
    whole = picture.copy()
    above, below = picture[0:-2:2].astype(np.uint16), picture[2::2].astype(np.uint16)
    count = min(len(above), len(below))
    whole[1 : 1 + 2 * count : 2] = ((above[:count] + below[:count] + 1) // 2).astype(np.uint8)
    if not len(picture) % 2:
        whole[-1] = whole[-2]
    return whole


def _unsqueezed(picture: np.ndarray, aspect: Fraction | None) -> np.ndarray:
    """The picture with square pixels: one side is drawn out, none is shortened."""
    if not aspect or aspect == 1 or not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL:
        return picture
    height, width = picture.shape[:2]
    size = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """(2, 2) of -1, 0 and 1: where the picture's x and y axes point on the screen; None where nothing is said.

    A frame that was asked is freed by the garbage collector alone: of a film ask the first.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    values = np.frombuffer(bytes(data), np.int32) if data is not None else np.empty(0)
    return np.sign(np.round(values.reshape(3, 3)[:2, :2] / 65536)).astype(int) if len(values) == 9 else None


def turned(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """(H, W) or (H, W, 3) turned and mirrored in quarter turns: a place (x, y) goes to (x, y) @ matrix."""
    if matrix is None or abs(matrix).sum() != 2 or abs(np.linalg.det(matrix)) < 0.5:
        return picture
    if not matrix[0, 0]:
        picture = picture.swapaxes(0, 1)
        matrix = matrix[::-1]
    return picture[:: matrix[1, 1], :: matrix[0, 0]]
