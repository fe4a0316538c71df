"""``atldiff dub``: a video and speech, or a text → the same video, saying that."""

import argparse
import contextlib
import time
from typing import TYPE_CHECKING

from atldiff.cli.common import ProgressBar, add_face_options, add_option, open_pipeline, parent_folder
from atldiff.cli.generate import STANDARD_INPUT, add_output_options, add_places, places_of, spoken_input
from atldiff.dub.options import DubOptions
from atldiff.options import GenerationOptions

if TYPE_CHECKING:
    from atldiff.render.dub import DubbedFile

EXAMPLES = """examples:
  atldiff dub interview.mp4 --speech german.wav -o interview-de.mp4
  atldiff dub clip.mov new-words.wav out.mp4 --old-sound 0.2 --longer loop
  atldiff dub panel.mp4 --face 2 --text "I never said that." -o out.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("inputs", metavar="V S OUT", nargs="*", help="video, speech and output, in this order, as far as not named")
    add("-i", "--video", metavar="V", help="a video with a face in it")
    add_places(parser)
    for name in ("longer", "shorter", "old_sound"):
        add_option(parser, DubOptions, name)
    add_face_options(parser)
    add_output_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    asked = DubOptions(arguments.longer, arguments.shorter, arguments.old_sound, arguments.face)
    GenerationOptions(mouth=arguments.mouth)
    video, speech, output = places_of(arguments, "video", "-i")

    from atldiff.media.film import Film
    from atldiff.media.kinds import check_crf, file_kind
    from atldiff.media.signing import chosen_identity
    from atldiff.media.writer import check_output
    from atldiff.render.dub import dub_video

    film = Film.open(video)
    check_crf(arguments.crf, file_kind(output))
    with contextlib.ExitStack() as stack:
        stack.enter_context(parent_folder(output))
        inputs = (film.path, *([] if speech in (None, STANDARD_INPUT) else [speech]))
        check_output(output, inputs, overwrite=not arguments.no_clobber)
        identity = chosen_identity(arguments.sign_cert, arguments.sign_key)
        sound = spoken_input(speech, arguments)
        began = time.monotonic()
        pipeline = stack.enter_context(open_pipeline(arguments))
        loading_s = time.monotonic() - began
        reading = stack.enter_context(ProgressBar("frame read", arguments.quiet))
        progress = stack.enter_context(ProgressBar("frame", arguments.quiet))
        written = dub_video(
            pipeline,
            film.path,
            sound,
            output,
            reading=reading,
            progress=progress,
            badge=arguments.badge,
            identity=identity,
            crf=arguments.crf,
            overwrite=not arguments.no_clobber,
            longer=asked.longer,
            shorter=asked.shorter,
            old_sound=asked.old_sound,
            face=asked.face,
            mouth=arguments.mouth,
        )
    print(_closing_line(written, loading_s))


def _closing_line(written: "DubbedFile", loading_s: float) -> str:
    width, height = written.size
    report = written.report
    left = "".join(f", {count} {reason}" for reason, count in report.left.items())
    return (
        f"{written.path}: {width}×{height}, {written.duration_s:.2f} s, {report.frames} frames, {report.dubbed} of "
        f"them dubbed{left}, {report.cuts} cuts, took {written.seconds:.1f} s and {loading_s:.1f} s to load, "
        f"real-time factor {written.real_time_factor:.2f}"
    )
