"""``atldiff prepare-portrait``: a portrait → a file that is opened faster."""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  atldiff prepare-portrait me.jpg -o me.atl
  atldiff prepare-portrait two.jpg -o left.atl --face 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("portrait", metavar="P", type=Path, help="a picture, or a video with a face in it")
    add("-o", "--output", metavar="FACE.atl", required=True, type=Path, help="the file to write")
    add("--face", metavar="N", type=int, help="which face, from 1 at the left (default: the largest)")


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.face.detection import FaceDetector
    from atldiff.face.portrait import prepare_portrait
    from atldiff.face.prepared import check_name

    check_name(arguments.output)
    with FaceDetector() as detector:
        face = prepare_portrait(arguments.portrait, lambda: detector, arguments.face)
    height, width = face.picture.shape[:2]
    print(f"{face.save(arguments.output)}: a face in {width}×{height} pixels")
