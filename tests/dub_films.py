"""Little films of the bundled portrait for the tests of dubbing: it moves, it is cut, it goes away."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

SIDE = 192


def moving_frames(portrait: Path, count: int, side: int = SIDE) -> np.ndarray:
    """(count, side, side, 3) uint8: the face drifts and turns a little in its plane."""
    picture = (
        Image.open(portrait).convert("RGB").crop((100, 0, 356, 256)).resize((side, side), Image.Resampling.LANCZOS)
    )
    frames = []
    for number in range(count):
        angle, shift = 2.0 * np.sin(number / 7), 3.0 * np.sin(number / 5)
        moved = picture.rotate(angle, Image.Resampling.BICUBIC, translate=(round(shift), 0), fillcolor=(90, 90, 110))
        frames.append(np.asarray(moved))
    return np.stack(frames)


def empty_frames(count: int, side: int = SIDE) -> np.ndarray:
    """The same number without a face."""
    rows = np.linspace(40, 200, side, dtype=np.uint8)
    return np.broadcast_to(rows[None, :, None, None], (count, side, side, 3)).copy()


def write_film(
    path: Path,
    frames: np.ndarray,
    times: list[int],
    time_base: Fraction = Fraction(1, 1000),
    full_range: bool = False,
    pixels: str = "yuv420p",
) -> Path:
    """(F, H, W, 3) uint8 shown at ``times``, which need not lie evenly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        stream.codec_context.max_b_frames = 0
        if full_range:
            stream.codec_context.color_range = 2
        for time, picture in zip(times, frames, strict=True):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            if full_range:
                frame = frame.reformat(format=pixels, dst_color_range=2)
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
