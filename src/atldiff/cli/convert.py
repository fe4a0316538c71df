"""``atldiff convert``: published checkpoints → folders that this package reads."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  atldiff convert landmarks published.ckpt -o converted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("part", choices=("landmarks", "image"), help="landmarks: a Lightning checkpoint; image: a diffusers folder")
    add("source", metavar="SOURCE", type=Path, help="the published file or folder")
    add("-o", "--output", metavar="DIR", required=True, type=Path, help="folder for the converted parts")


def run(arguments: argparse.Namespace) -> None:
    from atldiff.models.convert import convert_image_folder, convert_landmark_checkpoint

    if arguments.part == "landmarks":
        convert_landmark_checkpoint(arguments.source, arguments.output)
        print(f"{arguments.output}: landmark generator and wav2vec2 of {arguments.source}")
    else:
        config = convert_image_folder(arguments.source, arguments.output)
        unverified = "unverified, for the published class is not known"
        print(f"{arguments.output}: {config.unet_class} of {arguments.source}; {unverified}")
