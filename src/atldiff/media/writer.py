"""Frames and speech → an MP4 file that browsers play, written as a stream and never left half done."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from atldiff.errors import InputError, OutputError
from atldiff.media.background import Background
from atldiff.media.badge import Badge
from atldiff.media.files import frame_rate
from atldiff.media.kinds import check_crf, file_kind
from atldiff.media.palette import Palette
from atldiff.media.patches import Patch, PatchConverter, Patches
from atldiff.media.planes import Colours, Planes
from atldiff.media.provenance import MARK_METADATA, check_identity, sign_mp4
from atldiff.media.signing import SigningIdentity, default_identity

_ENCODER_THREADS = 4
"""Fixed, so that a file's bytes do not depend on the number of processors."""

_WAITING_BYTES = 64 << 20
_WAITING_FRAMES = 48
"""So much waits at most to be encoded: a window of frames, and less of large ones."""

_OPUS_RATE = 48_000
_GIF_MOST_FPS = 50
_AUDIO_BITS_PER_S = 160_000
_AUDIO_BITS_PER_SAMPLE = 6
"""Per channel: what AAC allows in a frame, which is less than the above at low sample rates."""


def check_output(path: str | Path, inputs: Iterable[str | Path] = (), overwrite: bool = True) -> Path:
    """The file that writing to ``path`` would make, links resolved; leaves no trace.

    Raises:
        OutputError: named for no kind of video, a folder, one of ``inputs`` (also through links), or in a folder that
            does not exist or cannot be written to.
    """
    path = Path(path)
    kind = file_kind(path)
    try:
        target = path.resolve()
        if target.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; expected a file name ending in {kind.suffix}")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {target.parent}; create it first")
        if not overwrite and target.exists():
            raise OutputError(f"cannot write {path}: it exists already; expected a new name")
        for given in map(Path, inputs):
            if target.exists() and given.exists() and target.samefile(given):
                raise OutputError(f"cannot write {path}: it is the input {given}; expected another file")
        with tempfile.TemporaryFile(dir=target.parent):
            return target
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {path}: {reason}; expected a writable folder") from error


class SoundTrack(Protocol):
    """What becomes the sound of a video: :class:`~atldiff.speech.waveform.Speech`, or another sound.

    Attributes:
        path: the file that it comes from, which is not to be overwritten.
    """

    path: Path | None

    @property
    def track_rate(self) -> int: ...

    @property
    def track_channels(self) -> int: ...

    def stereo_blocks(self, sample_rate: int | None = None) -> Iterator[np.ndarray]: ...


def written_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels of a video of such frames: sides are even, an odd one loses its last pixel."""
    return width // 2 * 2, height // 2 * 2


class VideoWriter:
    """Writes H.264 (High, yuv420p, BT.709 limited range) and AAC into an MP4 or MOV with its index in front.

    A WebM gets VP9 and Opus; it holds the plain mark alone, since C2PA has no place in it. A GIF has no sound, and at
    most 50 frames a second.

    Frame k is shown at k / fps and both tracks start at 0; the sound is as long as the speech. 4:2:0 needs
    even sides: of an odd width or height the last column or row is left out. Memory does not grow with
    length. Frames are encoded in a thread of their own: what goes wrong there is raised by a later
    :meth:`write`, or at the end of the ``with`` block. The file is marked as synthetic (see
    :mod:`atldiff.media.provenance`). It comes into being under a hidden name in the target's folder and, once it is
    signed, is moved to its own when the ``with`` block ends without an error; otherwise it is removed and an
    existing file stays. Signing copies the file: for a moment there are two.

    Args:
        path: ends in .mp4, .mov, .webm or .gif.
        width, height: of the frames in pixels, at least 2.
        fps: frames per second; 29.97 means 30000/1001, see :func:`atldiff.media.files.frame_rate`.
        speech: becomes the sound track; None writes a silent film.
        overwrite: whether an existing file may be replaced.
        identity: signs the file; None means :func:`atldiff.media.signing.default_identity`.
        badge: whether every frame shows that it is synthetic, see :class:`atldiff.media.badge.Badge`.
        crf: quality of the picture, 0 (best) to 51, for WebM to 63; 18, for WebM 24, if None.
        time_base: of the times of :meth:`write_planes`, seconds; 1 / fps if None.
        colours: of the planes; BT.709 limited range if None, which RGB frames become.

    Raises:
        OutputError: ``path`` cannot be written (see :func:`check_output`), or writing or signing fails (a full disk).
        InputError: a side below 2, ``fps`` or ``crf`` out of range, a frame of another shape or type, a certificate
            or key that cannot sign, or frames too small for a badge.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction,
        speech: SoundTrack | None = None,
        overwrite: bool = True,
        identity: SigningIdentity | None = None,
        badge: bool = False,
        crf: float | None = None,
        time_base: Fraction | None = None,
        colours: Colours | None = None,
    ) -> None:
        if width < 2 or height < 2:
            raise InputError(f"got frames of {width}×{height} pixels; expected at least 2×2")
        self.path = Path(path)
        self.width, self.height = width, height
        self.fps = frame_rate(fps)
        self.num_frames = 0
        self._time_base = 1 / self.fps if time_base is None else time_base
        self._colours = Colours() if colours is None else colours
        inputs = [speech.path] if speech is not None and speech.path is not None else []
        self._target = check_output(path, inputs, overwrite)
        self._kind = file_kind(self.path)
        self._crf = check_crf(crf, self._kind)
        if self._kind.muxer == "gif" and self.fps > _GIF_MOST_FPS:
            raise InputError(f"fps is {float(self.fps):g}; expected at most {_GIF_MOST_FPS} for a GIF")
        self._identity = default_identity() if identity is None else identity
        check_identity(self._identity)
        self._badge = Badge(*written_size(width, height)) if badge else None
        self._temporary, self._signed = (
            self._target.with_name(f".{self._target.name[:40]}.{secrets.token_hex(4)}{self._kind.suffix}")
            for _ in range(2)
        )
        self._speech = speech
        self._container: OutputContainer | None = None
        self._encoding: Background[tuple[int, np.ndarray | Patch | Planes]] | None = None
        self._patches, self._converter = Patches(), PatchConverter(self._kind.pixels)
        self._palette: Palette | None = None
        self._audio: AudioStream | None = None
        self._rate = 1

    def __enter__(self) -> Self:
        try:
            with self._reporting():
                self._open()
            room = max(2, min(_WAITING_FRAMES, _WAITING_BYTES // (3 * self.width * self.height)))
            self._encoding = Background(self._encode, room, "atldiff-encode")
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8 RGB, and the sound up to its end."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise InputError(
                f"got a frame of {frame.shape} {frame.dtype}; expected ({self.height}, {self.width}, 3) uint8"
            )
        width, height = written_size(self.width, self.height)
        even = frame[:height, :width]
        marked = even if self._badge is None else self._badge.draw(even)
        self._put(self.num_frames, marked.copy() if self._palette is not None else self._patches.cut(marked))

    def write_planes(self, planes: Planes, time: int) -> None:
        """Append one frame as it is, of the writer's colours, which is shown at ``time`` of its time base."""
        if (planes.width, planes.height) != written_size(self.width, self.height):
            raise InputError(
                f"got a frame of {planes.width}×{planes.height} pixels; expected {self.width}×{self.height}"
            )
        self._put(time, planes)

    def _put(self, time: int, picture: np.ndarray | Patch | Planes) -> None:
        if self._encoding is None:
            raise OutputError(f"{self.path} is not open for writing; use the writer in a with block")
        self._encoding.put((time, picture))
        self.num_frames += 1

    def _encode(self, timed: tuple[int, np.ndarray | Patch | Planes]) -> None:
        """Write one frame, with even sides, and the sound up to its end."""
        time, picture = timed
        frame = self._frame_of(picture)
        frame.pts, frame.time_base = time, self._time_base
        with self._reporting():
            assert self._container is not None
            self._container.mux(self._video.encode(frame))
        self._write_sound(until=time * self._time_base + 1 / self.fps)

    def _frame_of(self, picture: np.ndarray | Patch | Planes) -> VideoFrame:
        """As the encoder takes it; planes get their badge."""
        if isinstance(picture, Patch):
            return self._converter.frame(picture)
        if isinstance(picture, Planes):
            marked = picture if self._badge is None else self._badge.draw_on(picture)
            if self._palette is None:
                return marked.to_frame()
            picture = marked.rgb()
        assert self._palette is not None
        return self._palette.reduce(VideoFrame.from_ndarray(picture, format="rgb24"))

    def _open(self) -> None:
        kind = self._kind
        flags = {"movflags": "+faststart"} if kind.muxer in ("mp4", "mov") else {}
        self._container = av.open(f"file:{self._temporary}", "w", format=kind.muxer, options=flags)
        self._container.metadata.update(MARK_METADATA)
        options = dict(kind.options) | ({"crf": f"{self._crf:g}"} if self._crf is not None else {})
        video = self._container.add_stream(kind.codec, rate=self.fps, options=options)
        assert isinstance(video, VideoStream)
        video.width, video.height = written_size(self.width, self.height)
        video.pix_fmt = kind.pixels
        video.codec_context.time_base = self._time_base
        video.codec_context.thread_count = _ENCODER_THREADS
        if kind.pixels == "pal8":
            self._palette = Palette()
        else:
            video.codec_context.colorspace = self._colours.space
            video.codec_context.color_range = self._colours.range
            video.codec_context.color_primaries = self._colours.primaries
            video.codec_context.color_trc = self._colours.transfer
        self._video = video
        self._sound: Iterator[np.ndarray] = iter(())
        self._samples = 0
        if self._speech is not None and kind.sound:
            self._open_sound(self._container, self._speech)

    def _open_sound(self, container: OutputContainer, speech: SoundTrack) -> None:
        channels = speech.track_channels
        self._rate = _OPUS_RATE if self._kind.sound == "libopus" else speech.track_rate
        layout = "mono" if channels == 1 else "stereo"
        track = container.add_stream(self._kind.sound, rate=self._rate, layout=layout)
        assert isinstance(track, AudioStream)
        self._audio = track
        track.bit_rate = min(_AUDIO_BITS_PER_S, _AUDIO_BITS_PER_SAMPLE * self._rate * channels)
        self._sound = speech.stereo_blocks(self._rate)

    def _write_sound(self, until: Fraction | None = None) -> None:
        """Encode what is left of the sound, or what is heard before ``until`` seconds."""
        while self._container is not None and (until is None or self._samples < until * self._rate):
            block = next(self._sound, None)
            if block is None:
                return
            assert self._audio is not None
            frame = AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format="fltp", layout=self._audio.layout.name
            )
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
            self._samples += block.shape[1]
            with self._reporting():
                self._container.mux(self._audio.encode(frame))

    def _finish(self) -> None:
        if not self.num_frames:
            raise OutputError(f"cannot write {self.path}: no frame was written; expected at least one")
        assert self._encoding is not None
        self._encoding.finish()
        self._write_sound()
        with self._reporting():
            assert self._container is not None
            self._container.mux(self._video.encode(None))
            if self._audio is not None:
                self._container.mux(self._audio.encode(None))
            self._container.close()
            self._container = None
            if self._kind.signed_as:
                sign_mp4(self._temporary, self._signed, self._identity, self._kind.signed_as)
            else:
                self._temporary.replace(self._signed)
            with self._signed.open("rb") as stream:
                os.fsync(stream.fileno())
            self._signed.replace(self._target)

    def _abandon(self) -> None:
        """Close and remove what is not in place; nothing to do after :meth:`_finish`."""
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            encoding.stop()
        container, self._container = self._container, None
        try:
            if container is not None:
                with contextlib.suppress(FFmpegError, OSError):
                    container.close()
        finally:
            for path in (self._temporary, self._signed):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot write {self.path}: {reason}") from error
