"""``atldiff live``: PCM on standard input, frames on standard output or in a marked mp4, while it is being spoken."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from atldiff.cli.common import add_generation_options, generation_options, open_pipeline
from atldiff.errors import InputError
from atldiff.options import SAMPLE_FORMATS, GenerationOptions, known_options

if TYPE_CHECKING:
    import numpy as np

    from atldiff.live.session import LiveSession, LiveStats

EXAMPLES = """examples:
  ffmpeg -loglevel error -i speech.flac -ac 1 -ar 16000 -f s16le - | atldiff live -p me.jpg -o out.mp4
  ffmpeg -loglevel error -f pulse -i default -ac 1 -ar 16000 -f s16le - |
    atldiff live -p me.jpg | ffplay -f mjpeg -framerate 25 -
"""

FRAME_FORMATS = ("mjpeg", "rgb24")

_STDIN, _STDOUT = 0, 1
_LARGEST_READ = 16_384

_log = logging.getLogger("atldiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add(
        "-p",
        "--portrait",
        "-i",
        metavar="P",
        required=True,
        type=Path,
        help="a picture, or a video with a face in it",
    )
    add("--rate", metavar="N", type=int, default=16_000, help="samples a second of the sound (default: %(default)s)")
    add("--format", choices=SAMPLE_FORMATS, default="s16le", help="of the sound, mono (default: %(default)s)")
    add("--frames", choices=FRAME_FORMATS, default="mjpeg", help="what is written (default: %(default)s)")
    add(
        "-o",
        "--output",
        metavar="OUT.mp4",
        type=Path,
        help="write a marked video with the sound (default: frames to standard output)",
    )
    look_ahead, _ = known_options(GenerationOptions)["look_ahead_s"]
    text = f"seconds, {look_ahead.range} (default: %(default)g)"
    add("--look-ahead", metavar="X", type=float, default=0.2, help=text)
    add(
        "--max-delay",
        metavar="X",
        type=float,
        default=1.0,
        help="seconds after which a frame is late; the one before it is written again (default: %(default)g)",
    )
    add(
        "--keep-late", action="store_true", help="make every frame, however late, and put no silence in (default: no)"
    )
    add_generation_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    options = generation_options(arguments)

    from atldiff.media.files import existing_file

    existing_file(arguments.portrait, "a picture or a video of a face")
    if os.isatty(_STDIN):
        raise InputError("standard input is a terminal; expected sound, see docs/live.md")
    if arguments.output is not None:
        _check_target(arguments)
    elif os.isatty(_STDOUT):
        raise InputError("standard output is a terminal; expected a file or a pipe, or -o, see docs/live.md")
    patience: dict[str, Any] = {"max_delay_s": arguments.max_delay}
    if arguments.keep_late or arguments.output is not None:
        patience = {"max_delay_s": None, "idle_s": None}
    with (
        open_pipeline(arguments) as pipeline,
        open(_STDOUT, "wb", closefd=False) as output,
        pipeline.live(
            arguments.portrait,
            sample_rate=arguments.rate,
            look_ahead_s=arguments.look_ahead,
            **patience,
            **options,
        ) as session,
    ):
        size, chunks = f"{session.width}x{session.height}", _pcm_chunks(SAMPLE_FORMATS[arguments.format])
        what = arguments.frames if arguments.output is None else arguments.output
        _log.info("writing %s, %s at %g frames a second", what, size, session.fps)
        if arguments.output is None:
            _write_frames(session, chunks, arguments.frames, output)
        else:
            _write_video(session, chunks, arguments)
        _log.info("%s", _summary(session.stats))


def _pcm_chunks(sample_type: str) -> Iterator["np.ndarray"]:
    """Standard input as it comes, whole samples at a time."""
    import numpy as np

    width, rest = np.dtype(sample_type).itemsize, b""
    while data := os.read(_STDIN, _LARGEST_READ):
        rest += data
        whole = len(rest) // width * width
        yield np.frombuffer(rest[:whole], sample_type)
        rest = rest[whole:]


def _write_frames(
    session: "LiveSession", chunks: Iterator["np.ndarray"], frame_format: str, output: BinaryIO
) -> None:
    """Every frame in its place: one that was dropped is the one before it once more."""
    from atldiff.media.jpeg import encode_jpeg

    encode: Callable[[np.ndarray], bytes] = encode_jpeg if frame_format == "mjpeg" else lambda it: it.tobytes()
    written, encoded = 0, b""
    for frame in session.animate(chunks):
        output.write(encoded * (frame.number - written))
        encoded = encode(frame.picture)
        output.write(encoded)
        output.flush()
        written = frame.number + 1
    output.write(encoded * (session.stats.frames + session.stats.dropped - written))


def _check_target(arguments: argparse.Namespace) -> None:
    from atldiff.media.writer import check_output

    check_output(arguments.output, [arguments.portrait])


def _write_video(session: "LiveSession", chunks: Iterator["np.ndarray"], arguments: argparse.Namespace) -> None:
    """A file like those of ``generate``: with the sound, marked, and in place only when it is finished."""
    from atldiff.media.writer import VideoWriter
    from atldiff.speech.spoken import SpokenTrack

    track: Any = SpokenTrack(arguments.rate)

    def heard() -> Iterator["np.ndarray"]:
        for chunk in chunks:
            track.put(chunk)
            yield chunk
        track.end()

    with VideoWriter(arguments.output, session.width, session.height, session.fps, track) as writer:
        try:
            for frame in session.animate(heard()):
                writer.write(frame.picture)
        finally:
            track.end()


def _summary(stats: "LiveStats") -> str:
    return (
        f"{stats.frames} frames, {stats.dropped} dropped, {stats.sound_s:.2f} s of sound, {stats.silence_s:.2f} s of "
        f"silence put in, delay {stats.median_delay_s:.3f} s (median), {stats.p95_delay_s:.3f} s (95 %), "
        f"{stats.longest_delay_s:.3f} s (longest)"
    )
