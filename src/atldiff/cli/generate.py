"""``atldiff generate``: portrait and speech → mp4."""

import argparse
from pathlib import Path

from atldiff.cli.common import ProgressBar, open_pipeline
from atldiff.options import AUTO_EMOTION, BLINKS, EMOTIONS, GenerationOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--portrait", metavar="P", required=True, type=Path, help="a picture, or a video with a face in it")
    add("--speech", metavar="S", required=True, type=Path, help="a sound file, or a video with sound")
    add("-o", "--output", metavar="OUT.mp4", required=True, type=Path, help="the video to write")
    add(
        "--fps",
        metavar="X",
        type=float,
        default=GenerationOptions.fps,
        help="frames per second (default: %(default)g)",
    )
    add("--steps", metavar="N", type=int, help="sampler steps (default: the model's own)")
    add("--seed", metavar="N", type=int, default=GenerationOptions.seed, help="default: %(default)s")
    add(
        "--emotion",
        metavar="NAME",
        default=GenerationOptions.emotion,
        help=f"{', '.join(EMOTIONS)}, or {AUTO_EMOTION} to hear it from the speech (default: %(default)s)",
    )
    add(
        "--intensity",
        metavar="X",
        type=float,
        default=GenerationOptions.intensity,
        help="strength of the expression, 0 to 1 (default: %(default)g)",
    )
    add(
        "--head-motion",
        metavar="X",
        type=float,
        default=GenerationOptions.head_motion,
        help="strength of the head's own motion, 0 to 1 (default: %(default)g)",
    )
    add("--blink", choices=BLINKS, default=GenerationOptions.blink, help="default: %(default)s")
    add(
        "--mouth",
        metavar="X",
        type=float,
        default=GenerationOptions.mouth,
        help="how far the mouth moves, 0 to 1.5 (default: %(default)g)",
    )
    add("--model", metavar="DIR", help="folder of a model (default: the one in the package)")
    add("--face", metavar="N", type=int, help="which face, from 1 at the left (default: the largest)")
    add("--crop-only", action="store_true", help="write the 128×128 crop of the face, not the whole portrait")


def run(arguments: argparse.Namespace) -> None:
    names = ("fps", "seed", "emotion", "intensity", "head_motion", "blink", "mouth")
    options = {name: getattr(arguments, name) for name in names}
    GenerationOptions(steps=GenerationOptions.steps if arguments.steps is None else arguments.steps, **options)

    from atldiff.media import existing_file
    from atldiff.render import render_video
    from atldiff.speech.waveform import Speech
    from atldiff.video.writer import check_output

    existing_file(arguments.portrait, "a picture or a video of a face")
    existing_file(arguments.speech, "a sound file or a video with sound")
    check_output(arguments.output, (arguments.portrait, arguments.speech))
    speech = Speech.open(arguments.speech)
    with open_pipeline(arguments) as pipeline, ProgressBar("frame", arguments.quiet) as progress:
        report = render_video(
            pipeline,
            arguments.portrait,
            speech,
            arguments.output,
            progress=progress,
            steps=arguments.steps,
            face=arguments.face,
            crop_only=arguments.crop_only,
            **options,
        )
    if arguments.emotion == AUTO_EMOTION:
        print(f"emotion heard: {report.emotion}")
    print(
        f"{report.path}: {report.duration_s:.2f} s, {report.frames} frames, took {report.seconds:.1f} s, "
        f"real-time factor {report.real_time_factor:.2f}"
    )
