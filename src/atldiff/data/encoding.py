"""How a prepared clip is kept in bytes: crops as H.264 in mp4, sound as FLAC, landmarks as npz."""

import io
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from atldiff.errors import InputError
from atldiff.speech import SAMPLE_RATE

KEYFRAME_INTERVAL = 8
"""A keyframe every so many frames: a window is decoded without the whole clip before it."""

_NPY_MAGIC = b"\x93NUMPY"

_QUALITY = 12
"""x264's constant rate factor; 0 is lossless."""


def encode_video(frames: Iterable[np.ndarray], fps: Fraction) -> bytes:
    """Frames (size, size, 3) uint8 → mp4: H.264 with full colour resolution (4:4:4), frame k at k / fps."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=fps)
        track.pix_fmt = "yuv444p"
        track.thread_count = 1
        track.options = {
            "crf": str(_QUALITY),
            "g": str(KEYFRAME_INTERVAL),
            "bf": "0",
            "preset": "medium",
            "x264-params": "scenecut=0",
        }
        for index, picture in enumerate(frames):
            if not index:
                track.height, track.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, 1 / fps
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return stream.getvalue()


def encode_plain_video(frames: np.ndarray) -> bytes:
    """(F, size, size, 3) uint8 → npy: thirty times as large as mp4, and a window of it is only read."""
    stream = io.BytesIO()
    np.save(stream, frames, allow_pickle=False)
    return stream.getvalue()


def decode_video(content: bytes, first: int, count: int) -> np.ndarray:
    """Frames ``first`` to ``first + count`` of one of the encoders' bytes, (count, size, size, 3) uint8 RGB.

    PyAV decodes mp4, or OpenCV where PyAV is not installed.

    Raises:
        InputError: the bytes hold no such frames.
    """
    if content.startswith(_NPY_MAGIC):
        return _complete(list(np.load(io.BytesIO(content))[first : first + count]), first, count)
    try:
        import av
        from av.error import FFmpegError
        from av.video.reformatter import VideoReformatter
    except ImportError:
        return _decode_with_opencv(content, first, count)
    pictures, reformatter = [], VideoReformatter()
    try:
        with av.open(io.BytesIO(content), "r") as container:
            track = container.streams.video[0]
            track.thread_count = 1
            rate = track.average_rate
            assert rate is not None and track.time_base is not None
            if first >= KEYFRAME_INTERVAL:
                container.seek(round(first / rate / track.time_base), stream=track)
            for frame in container.decode(track):
                assert frame.pts is not None and frame.time_base is not None
                if round(frame.pts * frame.time_base * rate) >= first:
                    # One thread: waking several for so small a picture takes longer than the conversion.
                    pictures.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
                if len(pictures) == count:
                    break
    except (FFmpegError, IndexError) as error:
        raise InputError(f"the crops cannot be decoded ({error}); expected H.264 in mp4") from error
    return _complete(pictures, first, count)


def _decode_with_opencv(content: bytes, first: int, count: int) -> np.ndarray:
    from importlib import import_module

    try:
        cv2 = import_module("cv2")
    except ImportError as error:
        raise InputError("the crops need PyAV or OpenCV to be decoded; neither is installed") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(content)
        capture = cv2.VideoCapture(str(path))
        pictures = []
        for index in range(first + count):
            good, picture = capture.read()
            if not good:
                break
            if index >= first:
                pictures.append(picture[..., ::-1])
        capture.release()
    return _complete(pictures, first, count)


def _complete(pictures: list[np.ndarray], first: int, count: int) -> np.ndarray:
    if len(pictures) != count:
        raise InputError(
            f"expected {count} frames from frame {first} on; the crops end after {len(pictures)} of them"
        )
    return np.stack(pictures)


def encode_sound(samples: np.ndarray) -> bytes:
    """(samples,) float32 in [-1, 1], 16 kHz → FLAC, 16 bit."""
    import av

    stream = io.BytesIO()
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    with av.open(stream, "w", format="flac") as container:
        track = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        fifo = av.AudioFifo()
        fifo.write(frame)
        while piece := fifo.read(4096) or fifo.read(4096, partial=True):
            container.mux(track.encode(piece))
        container.mux(track.encode(None))
    return stream.getvalue()


def decode_sound(content: bytes) -> np.ndarray:
    """:func:`encode_sound`'s bytes → (samples,) float32 at 16 kHz.

    Raises:
        InputError: the bytes are not FLAC.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(content), "r") as container:
            pieces = [frame.to_ndarray()[0] for frame in container.decode(container.streams.audio[0])]
    except (FFmpegError, IndexError) as error:
        raise InputError(f"the sound cannot be decoded ({error}); expected FLAC") from error
    return np.concatenate(pieces or [np.zeros(0, np.int16)]).astype(np.float32) / 32767


def encode_landmarks(landmarks: np.ndarray) -> bytes:
    """(F, 68, 2) → npz with the array ``landmarks``, float32."""
    stream = io.BytesIO()
    np.savez_compressed(stream, landmarks=landmarks.astype(np.float32))
    return stream.getvalue()


def decode_landmarks(content: bytes) -> np.ndarray:
    """:func:`encode_landmarks`'s bytes → (F, 68, 2) float32.

    Raises:
        InputError: the bytes are not such an npz.
    """
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return arrays["landmarks"]
    except Exception as error:
        raise InputError(f"the landmarks cannot be read ({error}); expected an npz with landmarks") from error
