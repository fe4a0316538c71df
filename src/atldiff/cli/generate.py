"""``atldiff generate``: portrait and speech, or a text → a video file."""

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.cli.common import (
    ProgressBar,
    add_generation_options,
    add_option,
    generation_options,
    open_pipeline,
    parent_folder,
)
from atldiff.errors import InputError
from atldiff.options import AUTO_EMOTION, FramingOptions

if TYPE_CHECKING:
    from atldiff.render.video import RenderReport
    from atldiff.speech.text import Voice
    from atldiff.speech.waveform import Speech

EXAMPLES = """examples:
  atldiff generate portrait.jpg speech.wav out.mp4
  atldiff generate -p phone.heic -s message.m4a -o clips/hello.mp4 --emotion happy
  atldiff generate -p portrait.png -s interview.mkv --audio-track 2 --aspect 9:16 --max-size 1280 -o short.webm
  some-speech-program | atldiff generate -p portrait.jpg -s - -o out.mp4
  atldiff generate -p portrait.jpg --text "Hello. I say what I read." -o out.mp4
"""

STANDARD_INPUT = "-"
_PIECE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add(
        "inputs", metavar="P S OUT", nargs="*", help="portrait, speech and output, in this order, as far as not named"
    )
    add("-p", "--portrait", "-i", metavar="P", help="a picture, or a video with a face in it")
    add_places(parser)
    add_generation_options(parser)
    add_output_options(parser)


def add_places(parser: argparse.ArgumentParser) -> None:
    """What is said, and where the video is written to."""
    add = parser.add_argument
    add("-s", "--speech", "-a", metavar="S", help="a sound file, or a video with sound; - for standard input")
    add("--text", metavar="TEXT", help="what is to be said, in the place of speech; - for standard input")
    add("--voice", metavar="NAME", help="says the text: a voice, or module:callable (default: that of the extra tts)")
    add("-o", "--output", metavar="OUT", help="the video to write: .mp4, .mov, .webm or .gif; its folder is made")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Which sound is taken, and how the video is written and signed."""
    add = parser.add_argument
    add_option(parser, FramingOptions, "audio_track")
    add("--crf", metavar="X", type=float, help="quality, 0 (best) to 51, .webm 63 (default: 18, .webm 24)")
    add("--no-clobber", action="store_true", help="leave a file that exists as it is (default: it is replaced)")
    add_option(parser, FramingOptions, "badge")
    add("--sign-cert", metavar="PEM", type=Path, help="your certificate chain (default: self-signed, made for you)")
    add(
        "--sign-key", metavar="PEM", type=Path, help="its private key (default: that of the certificate made for you)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    options = generation_options(arguments)
    portrait, speech, output = places_of(arguments, "portrait", "-p")

    from atldiff.media.files import existing_file
    from atldiff.media.forms import local_path
    from atldiff.media.kinds import check_crf, file_kind
    from atldiff.media.signing import chosen_identity
    from atldiff.media.writer import check_output
    from atldiff.render.video import render_video

    expected = "a picture or a video of a face"
    portrait = existing_file(local_path(portrait, expected), expected)
    check_crf(arguments.crf, file_kind(output))
    with contextlib.ExitStack() as stack:
        stack.enter_context(parent_folder(output))
        inputs = (portrait, *([] if speech in (None, STANDARD_INPUT) else [speech]))
        check_output(output, inputs, overwrite=not arguments.no_clobber)
        identity = chosen_identity(arguments.sign_cert, arguments.sign_key)
        sound = spoken_input(speech, arguments)
        began = time.monotonic()
        pipeline = stack.enter_context(open_pipeline(arguments))
        progress = stack.enter_context(ProgressBar("frame", arguments.quiet))
        loading_s = time.monotonic() - began
        report = render_video(
            pipeline,
            portrait,
            sound,
            output,
            progress=progress,
            badge=arguments.badge,
            identity=identity,
            crf=arguments.crf,
            overwrite=not arguments.no_clobber,
            **options,
        )
    if arguments.emotion == AUTO_EMOTION:
        print(f"emotion heard: {report.emotion}")
    print(_closing_line(report, arguments.crop_only, loading_s))


def places_of(arguments: argparse.Namespace, source: str, short: str) -> tuple[str, str | None, Path]:
    """What is to speak, the speech and the output, named or in their order; with a text there is no speech."""
    given = list(arguments.inputs)
    wanted = {source: short, "speech": "-s", "output": "-o"}
    if arguments.text is not None:
        if arguments.speech is not None:
            raise InputError("got --speech and --text; expected one of them")
        del wanted["speech"]
    places: dict[str, str] = {}
    for name, option in wanted.items():
        value = getattr(arguments, name)
        if value is None and not given:
            raise InputError(f"no {name} was given; expected {option} or {len(wanted)} names: {', '.join(wanted)}")
        places[name] = given.pop(0) if value is None else value
    if given:
        raise InputError(f"{given[0]!r} is one name too many; expected {', '.join(wanted)}")
    return places[source], places.get("speech"), Path(places["output"])


def _closing_line(report: "RenderReport", crop_only: bool, loading_s: float) -> str:
    width, height = report.size
    size = f"{width}×{height}"
    if not crop_only and max(report.portrait_size) > max(report.size):
        size += " of {}×{} (--max-size)".format(*report.portrait_size)
    return (
        f"{report.path}: {size}, {report.duration_s:.2f} s, {report.frames} frames, seed {report.seed}, "
        f"took {report.seconds:.1f} s and {loading_s:.1f} s to load, real-time factor {report.real_time_factor:.2f}"
    )


def spoken_input(speech: str | None, arguments: argparse.Namespace) -> "Speech":
    """The recording, or the text, spoken."""
    from atldiff.speech.text import spoken
    from atldiff.speech.waveform import Speech

    if speech is not None:
        if arguments.voice is not None:
            raise InputError("--voice says a --text; with speech it has nothing to do")
        return Speech.coerce(speech, track=arguments.audio_track)
    text = _standard_input() if arguments.text == STANDARD_INPUT else arguments.text
    return spoken(text, _voice(arguments.voice))


def _standard_input() -> Iterator[str]:
    try:
        while piece := sys.stdin.read(_PIECE):
            yield piece
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is no text in {sys.stdin.encoding}; expected text") from error


def _voice(name: str | None) -> "Voice":
    """A voice by its name, or the callable of a module that Python finds, also in the current folder."""
    from atldiff.speech.voices import DEFAULT_VOICE

    module, colon, attribute = (name or DEFAULT_VOICE).partition(":")
    if not colon:
        return module
    sys.path.append("")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no voice {name} ({error}); expected a name, or module:callable") from error
    finally:
        sys.path.remove("")
