"""``atldiff generate``: portrait and speech → mp4."""

import argparse
import time
from pathlib import Path

from atldiff.cli.common import ProgressBar, add_generation_options, generation_options, open_pipeline
from atldiff.options import AUTO_EMOTION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--portrait", metavar="P", required=True, type=Path, help="a picture, or a video with a face in it")
    add("--speech", metavar="S", required=True, type=Path, help="a sound file, or a video with sound")
    add("-o", "--output", metavar="OUT.mp4", required=True, type=Path, help="the video to write")
    add_generation_options(parser)
    add("--badge", action="store_true", help="show on every frame that the video is made by AI")
    add("--sign-cert", metavar="PEM", type=Path, help="your certificate chain (default: self-signed, made for you)")
    add("--sign-key", metavar="PEM", type=Path, help="its private key")


def run(arguments: argparse.Namespace) -> None:
    options = generation_options(arguments)

    from atldiff.media import existing_file
    from atldiff.render import render_video
    from atldiff.signing import chosen_identity
    from atldiff.speech.waveform import Speech
    from atldiff.video.writer import check_output

    existing_file(arguments.portrait, "a picture or a video of a face")
    existing_file(arguments.speech, "a sound file or a video with sound")
    check_output(arguments.output, (arguments.portrait, arguments.speech))
    identity = chosen_identity(arguments.sign_cert, arguments.sign_key)
    speech = Speech.open(arguments.speech)
    began = time.monotonic()
    with open_pipeline(arguments) as pipeline, ProgressBar("frame", arguments.quiet) as progress:
        loading_s = time.monotonic() - began
        report = render_video(
            pipeline,
            arguments.portrait,
            speech,
            arguments.output,
            progress=progress,
            badge=arguments.badge,
            identity=identity,
            **options,
        )
    if arguments.emotion == AUTO_EMOTION:
        print(f"emotion heard: {report.emotion}")
    print(
        f"{report.path}: {report.duration_s:.2f} s, {report.frames} frames, took {report.seconds:.1f} s "
        f"and {loading_s:.1f} s to load, "
        f"real-time factor {report.real_time_factor:.2f}"
    )
