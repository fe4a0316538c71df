"""What reading and writing of sound, pictures and video share: opening files, exact frame rates."""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from atldiff.errors import InputError

MAX_FPS = 240

_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dv,eac3,flac,flv,gif,matroska,mov,mp3,mpeg,mpegts,mxf,ogg,tta,voc,w64,wav,wv"
)
"""FFmpeg's readers of the formats that people keep sound and video in; it has some three hundred more."""

_CODECS = """
    aac aac_latm ac3 adpcm_ima_qt adpcm_ima_wav adpcm_ms adpcm_yamaha alac amr_nb amr_wb ape dts eac3 flac gsm gsm_ms
    mp1 mp2 mp3 opus speex tta vorbis wavpack wmalossless wmapro wmav1 wmav2
    av1 cfhd dnxhd dvvideo ffv1 flv1 gif h263 h264 hevc huffyuv mjpeg mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2
    msmpeg4v3 png prores qtrle rawvideo theora vc1 vp6 vp6f vp8 vp9 webp wmv1 wmv2 wmv3
"""
"""What is decoded, by FFmpeg's names, beside every kind of PCM."""

_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
"""Still pictures in the shape of an mp4, of which FFmpeg takes the tiles for videos."""

_NTSC_RATES = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))
_NTSC_TOLERANCE = 0.005

_MOST_BARREN_PACKETS = 20_000
"""So many packets in a row without a frame in them end the reading."""


def frame_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as an exact fraction; 23.976, 29.97, 59.94 … mean the NTSC rates n·1000/1001.

    Raises:
        InputError: not a number above 0 and up to ``MAX_FPS``.
    """
    if not math.isfinite(fps) or not 0 < fps <= MAX_FPS:
        raise InputError(f"got {fps} frames per second; expected a number above 0 and up to {MAX_FPS}")
    if not isinstance(fps, Fraction):
        for rate in _NTSC_RATES:
            if fps != round(fps) and abs(fps - rate) < _NTSC_TOLERANCE:
                return rate
    rate = Fraction(fps).limit_denominator(1001)
    if not rate:
        raise InputError(f"got {fps} frames per second; expected at least 1/1001")
    return rate


def existing_file(path: str | os.PathLike[str], expected: str) -> Path:
    """``path`` as a ``Path`` when it is a file with something in it.

    Args:
        path: what the caller gave.
        expected: what it should have been, for the message: "a sound or video file".

    Raises:
        InputError: there is nothing, a folder, no ordinary file, or an empty file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; expected {expected}")
        if not path.exists():
            raise InputError(f"{path} does not exist; expected {expected}")
        if not path.is_file():
            raise InputError(f"{path} is not an ordinary file; expected {expected}")
        if not path.stat().st_size:
            raise InputError(f"{path} is empty; expected {expected}")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from error
    return path


@contextmanager
def open_media(source: Path | bytes, expected: str, name: str = "") -> Iterator[InputContainer]:
    """Open a media file by its content; what it refers to (playlists, addresses) is never opened.

    Only formats that people keep sound and video in are read, whatever else FFmpeg knows.

    Args:
        source: a file, or its content.
        expected: what it should have been, for messages.
        name: of the source, for messages; by default its path.

    Raises:
        InputError: the file cannot be opened or is not media.
    """
    name = name or str(source)
    try:
        stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}); expected {expected}") from error
    with stream:
        head = stream.read(12)
        stream.seek(0)
        if is_still_picture(head):
            raise InputError(f"{name} is a picture; expected {expected}")
        try:
            options = {"protocol_whitelist": "none", "format_whitelist": _FORMATS}
            container = av.open(stream, "r", options=options, metadata_errors="replace")
        except (FFmpegError, OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} cannot be read as sound or video; expected {expected}") from error
        with container:
            yield container


def decoded_frames(
    container: InputContainer, stream: AudioStream | VideoStream
) -> Iterator[AudioFrame | VideoFrame | None]:
    """The frames of a stream that have something in them; None in place of a packet that does not decode.

    Raises:
        FFmpegError: the file breaks off there.
    """
    packets, barren = container.demux(stream), 0
    while barren < _MOST_BARREN_PACKETS:
        packet = next(packets, None)
        if packet is None:
            return
        barren += 1
        try:
            frames = packet.decode()
        except FFmpegError:
            yield None
            continue
        for frame in frames:
            assert isinstance(frame, AudioFrame | VideoFrame)
            if isinstance(frame, VideoFrame) or frame.samples:
                barren = 0
                yield frame


def is_still_picture(head: bytes) -> bool:
    """Whether a file that begins with these (12 or more) bytes is a picture of HEIF's family."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def check_codec(stream: Stream, name: str, expected: str) -> None:
    """Raise InputError unless what the stream holds is decoded here."""
    context = getattr(stream, "codec_context", None)
    codec = context.codec.canonical_name if context is not None else "unknown"
    if codec not in _CODECS.split() and not codec.startswith("pcm_"):
        raise InputError(f"{name} holds {stream.type} of kind {codec}, which is not read; expected {expected}")
