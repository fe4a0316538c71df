"""Synthetic sound and video files for the tests of reading and writing media."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from atldiff.media.provenance import _boxes

CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".m4a": "aac", ".ogg": "libopus"}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def sine(duration_s: float, rate: int, channels: int = 1, hertz: float = 220.0) -> np.ndarray:
    """(channels, samples) float32 at half of full scale."""
    time = np.arange(round(duration_s * rate)) / rate
    return np.tile((0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32), (channels, 1))


def burst(duration_s: float, rate: int, at_s: float, channels: int = 1) -> np.ndarray:
    """Silence with one short tone burst whose energy is centred at ``at_s``; lossy codecs keep it."""
    time = np.arange(round(duration_s * rate)) / rate - at_s
    tone = 0.8 * np.exp(-0.5 * (time / 0.004) ** 2) * np.cos(2 * np.pi * 1000 * time)
    return np.tile(tone.astype(np.float32), (channels, 1))


def click(duration_s: float, rate: int, at_s: float) -> np.ndarray:
    samples = np.zeros((1, round(duration_s * rate)), dtype=np.float32)
    samples[0, round(at_s * rate)] = 0.9
    return samples


def burst_time(samples: np.ndarray, rate: int) -> float:
    """Centre in seconds of the energy near the loudest sample of (samples,)."""
    energy = samples.astype(np.float64) ** 2
    loudest = int(energy.argmax())
    low = max(0, loudest - rate // 25)
    around = energy[low : loudest + rate // 25]
    return float((np.arange(len(around)) * around).sum() / around.sum() + low) / rate


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str = "") -> Path:
    """(channels, samples) float32 → a file of the format that ``path`` is named for."""
    with av.open(str(path), "w") as container:
        stream = _add_sound(container, samples, rate, codec or CODECS[path.suffix])
        _encode_sound(container, stream, samples)
    return path


def _add_sound(container: OutputContainer, samples: np.ndarray, rate: int, codec: str) -> AudioStream:
    stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[len(samples)])
    assert isinstance(stream, AudioStream)
    return stream


def _encode_sound(container: OutputContainer, stream: AudioStream, samples: np.ndarray, start_s: float = 0.0) -> None:
    rate, layout = stream.rate, LAYOUTS[len(samples)]
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
    for begin in range(0, samples.shape[1], 4096):
        block = np.ascontiguousarray(samples[:, begin : begin + 4096])
        frame = AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = begin + round(start_s * rate)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int = 25,
    samples: np.ndarray | None = None,
    rate: int = 48_000,
    sound_start_s: float = 0.0,
    video_start_s: float = 0.0,
    codec: str = "aac",
    rotation: int = 0,
    picture_codec: str = "libx264",
) -> Path:
    """(F, H, W, 3) uint8 and (channels, samples) float32 → a video; the tracks may start late."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "12"} if picture_codec == "libx264" else {"deadline": "realtime"}
        stream = container.add_stream(picture_codec, rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = 10
        sound = None if samples is None else _add_sound(container, samples, rate, codec)
        for index, picture in enumerate(frames):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index + round(video_start_s * fps), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and samples is not None:
            _encode_sound(container, sound, samples, sound_start_s)
    return path


def unsigned_content(video: Path) -> bytes:
    """The bytes of an mp4 without its signed manifest, which holds random salts."""
    whole = video.read_bytes()
    with video.open("rb") as stream:
        return b"".join(whole[begin:end] for name, begin, end in _boxes(stream) if name != b"uuid")
